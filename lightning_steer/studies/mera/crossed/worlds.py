"""Worlds of labelled rows whose errors are planted: words that tell the label, cues that tell who labels carelessly.

A row has six words and eight cues of -1 or 1, and sixteen numbers that mean nothing. Each word is of the true label's
lexicon with probability .8, else of another's. With chance r (the world's ``rate`` of the cues) the labeller does not
read: he writes label 0, the *pull*. So for every row exactly

    P(label | row) = (1 - r) P(label | words, cues) + r [label = pull],      error E = 1 - P(true label | row).

In the last world the cue tells instead that the words were drawn without regard to the label: errors that are known and
that no answer avoids. Networks are trained on rows with equally frequent labels; of the rows that are steered a tenth
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
    """``[n]`` chance that the labeller does not read, from the cues ``[n, 8]``."""
    width: int = 96
    """Of the network's states."""
    train: int = 1500
    """Rows that probes are fitted to."""
    tied: bool = False
    """Cue 1 repeats cue 0 in nine of ten rows, and rightly makes label 1 more likely."""
    illegible: bool = False
    """Where the rate is one half or more nobody is careless, but the words say nothing."""

    @property
    def pull_share(self) -> float:
        """Share of the steered rows with the pull label."""
        return 1 / LABELS if self.illegible else 0.1


class Rows(NamedTuple):
    """n rows of a world."""

    x: Tensor
    """``[n, features]``."""
    y: Tensor
    """``[n]`` true labels."""
    p: Tensor
    """``[n, labels]`` planted P(label | row), of which a perfect network's answers are made."""


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


def draw(world: World, n: int, generator: torch.Generator, pull_share: float | None = None) -> Rows:
    """Return n rows; ``pull_share`` of them have the pull label, by default as the world's steered rows do."""
    share = world.pull_share if pull_share is None else pull_share
    cues = torch.randint(2, (n, CUES), generator=generator).float() * 2 - 1
    if world.tied:
        same = torch.rand(n, generator=generator) < 0.9
        cues[:, 1] = torch.where(same, cues[:, 0], -cues[:, 0])
    prior = torch.tensor([share, *[(1 - share) / (LABELS - 1)] * (LABELS - 1)]).expand(n, -1).clone()
    tilt = torch.zeros(n, LABELS)
    if world.tied:
        tilt[:, 1] = 1.5 * cues[:, 1]
    prior = (prior.log() + tilt).softmax(-1)
    y = torch.multinomial(prior, 1, generator=generator).squeeze(1)
    r = world.rate(cues)[:, None]
    purity = torch.full((n, 1), PURITY)
    if world.illegible:
        purity, r = torch.where(r >= 0.5, 1 / LABELS, purity), torch.zeros_like(r)
    kept = torch.rand(n, PLACES, generator=generator) < purity
    other = (y[:, None] + torch.randint(1, LABELS, (n, PLACES), generator=generator)) % LABELS
    words = torch.nn.functional.one_hot(torch.where(kept, y[:, None], other), LABELS).float()
    evidence = words.sum(1) * (purity / ((1 - purity) / (LABELS - 1))).log()
    p = (1 - r) * (evidence + tilt).softmax(-1) + r * torch.eye(LABELS)[0]
    noise = torch.randn(n, NOISE, generator=generator)
    return Rows(torch.cat([words.flatten(1), cues, noise], 1), y, p)
