"""Compare with the planted truth: the repairable errors, the cue, the error of every prompt."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import LabelledExample, PocketTask
from lightning_steer.data.pocket.tasks import CARELESS
from lightning_steer.methods import MERA
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Share


class GroundTruth:
    """The planted truth of some prompts.

    Args:
        data: source of the prompts.
        examples: the prompts.
    """

    def __init__(self, data: MERADataModule, examples: Sequence[LabelledExample]) -> None:
        drawn = cast(PocketTask, data.source).drawn(data.drawn, data.seed)
        by_prompt = {item.prompt: item for item in reversed(drawn)}
        items = [by_prompt[example.prompt] for example in examples]
        self.careless = torch.tensor([item.marker in CARELESS for item in items])
        self.careful_answer = torch.tensor([int(np.argmax(item.posterior)) for item in items])
        """The answer that the content supports, whoever marked it."""
        self.error = torch.tensor([item.error for item in items], dtype=torch.float64)

    def repaired(self, test: Any, logits: Tensor) -> Estimate:
        """Return the repaired share of repairable errors: wrong rows whose content supports the right answer."""
        repairable = ~test.right & (self.careful_answer == test.y)
        if not repairable.any():
            return Estimate(float("nan"), float("nan"), float("nan"), 0, None, "none: no error can be repaired")
        return Share().estimate((logits.argmax(-1) == test.y)[repairable].double().numpy())[0]


def figures(data: MERADataModule, h: Tensor, method: Any, test: Any, known: GroundTruth) -> dict[str, Any]:
    """Return cosines of the last layer's probe and pattern with the cue, and correlations of predicted and true errors.

    The cue is the difference of the mean activations of careless and careful markers' training prompts. The marker of a
    prompt was drawn independently of everything else in it.
    """
    training, probe, layer = GroundTruth(data, data.train), cast(MERA, method), len(h) - 1
    rows = h[layer].double()
    cue = rows[training.careless].mean(0) - rows[~training.careless].mean(0)
    predicted = (test.decisions.h[layer].double() @ probe.weight.double() + probe.intercept.double()).sigmoid()
    p = test.decisions.base.double().softmax(-1)
    model_error = 1 - p[torch.arange(len(p)), test.y]

    def correlation(a: Tensor, b: Tensor) -> float:
        return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])

    def cosine(a: Tensor) -> float:
        return float(torch.cosine_similarity(a.double(), cue, dim=0))

    order, tenth = predicted.argsort(), len(predicted) // 10
    bins = [order[i * tenth : (i + 1) * tenth] for i in range(10)]
    return {
        "predicted_against_true": [[float(e[b].mean()) for b in bins] for e in (predicted, model_error, known.error)],
        "cosine_probe_cue": cosine(probe.weight),
        "cosine_pattern_cue": cosine(probe.along),
        "predicted_with_planted": correlation(predicted, known.error),
        "predicted_with_own": correlation(predicted, model_error),
        "own_with_planted": correlation(model_error, known.error),
        "repairable_share_of_errors": float(
            (~test.right & (known.careful_answer == test.y)).sum() / (~test.right).sum()
        ),
    }
