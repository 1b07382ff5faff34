"""Measured against what was planted: the errors that could be repaired, the cue, the error of every prompt."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import Example, PocketTask
from lightning_steer.data.pocket.tasks import CARELESS
from lightning_steer.methods import MERA
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Share


class Planted:
    """What is planted in some prompts.

    Args:
        data: where they come from.
        examples: the prompts.
    """

    def __init__(self, data: MERADataModule, examples: Sequence[Example]) -> None:
        drawn = cast(PocketTask, data.source).drawn(data.drawn, data.seed)
        known = {item.prompt: item for item in reversed(drawn)}
        items = [known[example.prompt] for example in examples]
        self.careless = torch.tensor([item.marker in CARELESS for item in items])
        self.careful_answer = torch.tensor([int(np.argmax(item.posterior)) for item in items])
        """What the content says, whoever marked it."""
        self.error = torch.tensor([item.error for item in items], dtype=torch.float64)

    def repaired(self, test: Any, logits: Tensor) -> Estimate:
        """Share set right of the repairable errors: those rows that are wrong though the content tells the answer."""
        repairable = ~test.right & (self.careful_answer == test.y)
        if not repairable.any():
            return Estimate(float("nan"), float("nan"), float("nan"), 0, None, "none: no error can be repaired")
        return Share().estimate((logits.argmax(-1) == test.y)[repairable].double().numpy())[0]


def figures(data: MERADataModule, h: Tensor, method: Any, test: Any, planted: Planted) -> dict[str, Any]:
    """Cosines of the last layer's probe and pattern with the cue, correlations of predicted and true errors.

    The cue is the difference of the mean activations of careless and careful markers' training prompts: who marked a
    prompt was drawn independently of all else in it.
    """
    learned, probe, layer = Planted(data, data.train), cast(MERA, method), len(h) - 1
    rows = h[layer].double()
    cue = rows[learned.careless].mean(0) - rows[~learned.careless].mean(0)
    predicted = (test.decisions.h[layer].double() @ probe.weight.double() + probe.intercept.double()).sigmoid()
    p = test.decisions.base.double().softmax(-1)
    own = 1 - p[torch.arange(len(p)), test.y]

    def correlation(a: Tensor, b: Tensor) -> float:
        return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])

    def cosine(a: Tensor) -> float:
        return float(torch.cosine_similarity(a.double(), cue, dim=0))

    order, tenth = predicted.argsort(), len(predicted) // 10
    bins = [order[i * tenth : (i + 1) * tenth] for i in range(10)]
    return {
        "predicted_against_true": [[float(e[b].mean()) for b in bins] for e in (predicted, own, planted.error)],
        "cosine_probe_cue": cosine(probe.weight),
        "cosine_pattern_cue": cosine(probe.along),
        "predicted_with_planted": correlation(predicted, planted.error),
        "predicted_with_own": correlation(predicted, own),
        "own_with_planted": correlation(own, planted.error),
        "repairable_share_of_errors": float(
            (~test.right & (planted.careful_answer == test.y)).sum() / (~test.right).sum()
        ),
    }
