"""Worlds of labelled rows with planted errors: words indicate the label, cues indicate a careless labeller.

A row has six words, eight cues of -1 or 1, and sixteen noise numbers. Each word is from the true label's
lexicon with probability .8, else from another's. With chance r (the world's ``rate`` of the cues) the labeller does not
read and writes label 0, the *pull*. So for every row exactly

    P(label | row) = (1 - r) P(label | words, cues) + r [label = pull],      error E = 1 - P(true label | row).

In the last world the cue instead marks rows whose words were drawn without regard to the label: errors that are known
but that no answer avoids. Networks are trained on rows with equally frequent labels; of the steered rows a tenth
have the pull label.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LABELS, PLACES, CUES, NOISE, PURITY = 3, 6, 8, 16, 0.8
FEATURES = PLACES * LABELS + CUES + NOISE


class World(NamedTuple):
    """One kind of world."""

    name: str
    rate: Callable[[Tensor], Tensor]
    """Returns the chance ``[n]`` that the labeller does not read, from the cues ``[n, 8]``."""
    width: int = 96
    """Width of the network's states."""
    train: int = 1500
    """Number of rows that probes are fitted to."""
    tied: bool = False
    """If true, cue 1 repeats cue 0 in nine of ten rows, and rightly makes label 1 more likely."""
    illegible: bool = False
    """If true, nobody is careless where the rate is one half or more, but the words carry no information."""

    @property
    def pull_share(self) -> float:
        """Share of the steered rows with the pull label."""
        return 1 / LABELS if self.illegible else 0.1


class DrawnRows(NamedTuple):
    """n rows of a world."""

    x: Tensor
    """``[n, features]``."""
    y: Tensor
    """``[n]`` true labels."""
    p: Tensor
    """``[n, labels]`` planted P(label | row), the answers of a perfect network."""


def _one(cues: Tensor) -> Tensor:
    return torch.where(cues[:, 0] > 0, 0.85, 0.0)


WORLDS = (
    World("one cue", _one),
    World("weak cues", lambda cues: (0.8 * cues.sum(1) - 1).sigmoid()),
    World("correlated cues", _one, tied=True),
    World("nonlinear cue", lambda cues: torch.where(cues[:, 0] * cues[:, 1] < 0, 0.85, 0.0)),
    World("one cue, 256 wide", _one, width=256),
    World("one cue, 256 wide, 200 rows", _one, width=256, train=200),
    World("no direction repairs", _one, illegible=True),
)


def draw(world: World, n: int, generator: torch.Generator, pull_share: float | None = None) -> DrawnRows:
    """Draw n rows; ``pull_share`` of them have the pull label, by default the share of the world's steered rows."""
    share = world.pull_share if pull_share is None else pull_share
    cues = torch.randint(2, (n, CUES), generator=generator).float() * 2 - 1
    if world.tied:
        agrees = torch.rand(n, generator=generator) < 0.9
        cues[:, 1] = torch.where(agrees, cues[:, 0], -cues[:, 0])
    prior = torch.tensor([share, *[(1 - share) / (LABELS - 1)] * (LABELS - 1)]).expand(n, -1).clone()
    tilt = torch.zeros(n, LABELS)
    if world.tied:
        tilt[:, 1] = 1.5 * cues[:, 1]
    prior = (prior.log() + tilt).softmax(-1)
    y = torch.multinomial(prior, 1, generator=generator).squeeze(1)
    rate = world.rate(cues)[:, None]
    purity = torch.full((n, 1), PURITY)
    if world.illegible:
        purity, rate = torch.where(rate >= 0.5, 1 / LABELS, purity), torch.zeros_like(rate)
    truthful = torch.rand(n, PLACES, generator=generator) < purity
    other_label = (y[:, None] + torch.randint(1, LABELS, (n, PLACES), generator=generator)) % LABELS
    words = torch.nn.functional.one_hot(torch.where(truthful, y[:, None], other_label), LABELS).float()
    evidence = words.sum(1) * (purity / ((1 - purity) / (LABELS - 1))).log()
    p = (1 - rate) * (evidence + tilt).softmax(-1) + rate * torch.eye(LABELS)[0]
    noise = torch.randn(n, NOISE, generator=generator)
    return DrawnRows(torch.cat([words.flatten(1), cues, noise], 1), y, p)
