"""Are planted additive and planted interfering pairs of methods told apart by the interval of their interaction?

Additive: two vectors behind gates that open for disjoint rows, so that every row is steered by at most one of them and
the true interaction is 0, in any network. Interfering: one vector twice, where once is already enough. The outcome of a
row is an answer drawn from the network's probabilities, anew for each intervention, so that rows vary as answers do.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor

from lightning_steer.data.pocket.prompts import task_prompts
from lightning_steer.data.toy.module import ToyLabelDataModule
from lightning_steer.data.toy.world import ToyPairSplit, ToyWorld
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import Gated, MeanDifference, SteeringMethod
from lightning_steer.modules import interventions
from lightning_steer.modules.toy import ToyClassifier
from lightning_steer.networks import ToyBackbone
from lightning_steer.networks.backbone import Backbone
from lightning_steer.probes import Condition
from lightning_steer.records import Activations
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.interactions import interaction, of_rows
from lightning_steer.studies.gates.pocket import model

TASK, STRENGTHS = "sentiment_analysis", {"toy": 1.5, "pocket": 3.0}
WORLD = {"attributes": 6, "values": 4, "dimensions": 4}


class AdditivityRows(NamedTuple):
    """What one draw of a world gives."""

    fits: list[Activations]
    """Rows for either of two vectors."""
    inputs: Any
    """Of the rows that are steered."""


class AdditivityWorld(NamedTuple):
    """A network, its rows, and the probability of the wanted answer in ``scores [copies, B, ...]``."""

    backbone: Backbone
    draw: Callable[[int, int], AdditivityRows]
    chance: Callable[[Tensor], Tensor]


class Draw(NamedTuple):
    """One draw of a planted pair."""

    planted: str
    true: float
    """Interaction of the network's probabilities on the drawn rows."""
    estimate: Estimate

    @property
    def told(self) -> bool:
        """Whether the interval holds 0 if the pair is additive, and is clear of it if it interferes."""
        return (self.estimate.low <= 0 <= self.estimate.high) == (self.planted == "additive")


def toy() -> AdditivityWorld:
    """Train a small toy network, and return it with pairs whose first attribute is steered to its first value."""
    L.seed_everything(0, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = L.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, default_root_dir=folder, num_sanity_val_steps=0,
            use_distributed_sampler=False, enable_checkpointing=False, **quiet,
        )  # fmt: skip
        classifier = ToyClassifier(widths=(32, 32, 16, 32), residual="none", learning_rate=5e-3)
        trainer.fit(classifier, ToyLabelDataModule(batch_size=64, steps_per_epoch=300, test_rows=200, **WORLD))
        trainer.save_checkpoint(Path(folder, "toy.ckpt"))
        backbone = ToyBackbone(str(Path(folder, "toy.ckpt")))
        backbone.load()
    world = ToyWorld(**WORLD)

    def draw(seed: int, n: int) -> AdditivityRows:
        batches = [ToyPairSplit(world, n, n, (seed, part), slice(None), [0], 0, True)[0] for part in range(3)]
        (site,) = backbone.sites
        fits = []
        for batch in batches[:2]:
            h = torch.cat([backbone.activations(x)[site] for x in batch.pair])
            error = torch.cat([torch.ones(n), torch.zeros(n)])
            fits.append(Activations(h, error, torch.zeros(2 * n, 1).long(), True))
        return AdditivityRows(fits, batches[2].x)

    return AdditivityWorld(backbone, draw, lambda scores: scores[..., 0, 0].exp())


def pocket(llm: str) -> AdditivityWorld:
    """Return the pocket model with a task's prompts, steered to its first label."""
    backbone = model(llm, None)

    def draw(seed: int, n: int) -> AdditivityRows:
        (site,) = backbone.sites
        fits = []
        for part in range(2):
            prompts = task_prompts(TASK, n, 3 * seed + part + 1000)
            h = backbone.activations([MultipleChoice(p.prompt) for p in prompts])[site]
            error = torch.tensor([float(p.label != 0) for p in prompts])
            fits.append(Activations(h, error, torch.zeros(n, 1).long(), False))
        prompts = task_prompts(TASK, n, 3 * seed + 1002)
        return AdditivityRows(
            fits, [MultipleChoice(p.prompt, tuple(f" {label}" for label in p.labels)) for p in prompts]
        )

    return AdditivityWorld(backbone, draw, lambda scores: scores.softmax(-1)[..., 0])


def pairs(rows: AdditivityRows, seed: int) -> dict[str, list[SteeringMethod]]:
    """Return the planted pairs."""
    first, second = (MeanDifference(seen.h.shape[-1]).fit(seen) for seen in rows.fits)
    above, below = Condition(first.width), Condition(first.width)
    above.weight = torch.randn(first.width, generator=torch.Generator().manual_seed(seed))
    below.weight = -above.weight
    middle = above.score(rows.fits[0].h).median()
    above.set_threshold(middle)
    below.set_threshold(-middle)
    additive: list[SteeringMethod] = [Gated.around(first, above), Gated.around(second, below)]
    return {"additive": additive, "interfering": [first, first]}


@torch.no_grad()
def draws(world: AdditivityWorld, name: str, count: int, n: int = 150) -> Iterator[Draw]:
    """Yield both planted pairs of each of ``count`` draws of n rows."""
    (site,), strength = world.backbone.sites, STRENGTHS[name]
    for seed in range(count):
        rows, random = world.draw(seed, n), np.random.default_rng([seed, 7])
        for planted, (a, b) in pairs(rows, seed).items():

            def both(_site: str, h: Tensor, a: SteeringMethod = a, b: SteeringMethod = b) -> Tensor:
                return h + a.shift(h, strength) + b.shift(h, strength)

            groups = [
                interventions.unsteered(),
                *(interventions.steered("", {site: method}, [strength]) for method in (a, b)),
                interventions.Interventions("", 1, both),
            ]
            scores = world.backbone.scores(rows.inputs, *interventions.together(groups, [site]))
            chance = world.chance(scores).double().numpy()
            answers = (random.random(chance.shape) < chance).astype(float)
            true = float(of_rows(chance[0], list(chance[1:3]), chance[3]).mean())
            (estimate,) = interaction(answers[0], list(answers[1:3]), answers[3], 0, 1)
            yield Draw(planted, true, estimate)
