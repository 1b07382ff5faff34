"""How a run chooses its strength: the best on held-out rows, or only one that is certified to improve."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.metrics.interval import bootstrap_weights, percentile
from lightning_steer.selection.abstention import BONFERRONI, EXACT, Multiplicity, certify
from lightning_steer.selection.bounds import Bound
from lightning_steer.selection.strength import choose


class Choice(NamedTuple):
    """What was chosen of S strengths."""

    index: int | None
    """Which; None: do not steer."""
    low: float
    """Lower end of the 95 % interval of the chosen strength over re-samplings of the rows; NaN if not estimated."""
    high: float
    """Upper end."""
    bound: float
    """Certified: the true improvement of the share of successes is larger than this; 0 if nothing is steered; NaN
    without a certificate."""
    reason: str
    """Why this one, or why none."""


class Selection(ABC):
    """A rule that chooses a strength from the same rows, steered at every strength."""

    @abstractmethod
    def choose(self, strengths: list[float], base: Tensor, success: Tensor, loss: Tensor) -> Choice:
        """Choose.

        Args:
            strengths: the S strengths, from the weakest effect to the strongest.
            base: ``[n]`` whether the unsteered network has the row right.
            success: ``[n, S]`` the same at each strength.
            loss: ``[n, S]`` how far the row is from what is wanted.
        """


class Best(Selection):
    """Most successes, ties by the smaller loss; by the loss alone below 32 rows.

    Args:
        resamples: bootstrap resamples behind the interval of the chosen strength.
    """

    def __init__(self, resamples: int = 2000) -> None:
        self.resamples = resamples

    def choose(self, strengths: list[float], base: Tensor, success: Tensor, loss: Tensor) -> Choice:
        index = int(choose(success, loss))
        again = choose(success, loss, bootstrap_weights(len(loss), self.resamples))
        low, high = percentile(torch.tensor(strengths, dtype=torch.float64)[again])
        rows = f"{len(loss)} rows"
        if len(loss) == 1:  # re-sampled it is always itself, which says nothing about other rows
            low, high, rows = min(strengths), max(strengths), "a single row, which says nothing about others"
        return Choice(index, low, high, float("nan"), f"best of {len(strengths)} strengths on {rows}")


class Certified(Selection):
    """The strength that certainly improves the share of successes, and by the most; or none: then nothing is steered.

    Args:
        delta: accepted risk that the chosen strength's true improvement is epsilon or less.
        epsilon: improvement that is to be exceeded; negative to tolerate a loss.
        bound: lower confidence bound of the improvement; null for the exact paired test.
        multiplicity: correction for the choice among the strengths; null for Bonferroni's.
    """

    def __init__(
        self,
        delta: float = 0.05,
        epsilon: float = 0.0,
        bound: Bound | None = None,
        multiplicity: Multiplicity | None = None,
    ) -> None:
        self.delta, self.epsilon = delta, epsilon
        self.bound, self.multiplicity = bound or EXACT, multiplicity or BONFERRONI

    def choose(self, strengths: list[float], base: Tensor, success: Tensor, loss: Tensor) -> Choice:
        right, steered = (part.bool().numpy() for part in (base, success.T))
        found = certify(right, steered, self.delta, self.epsilon, self.bound, self.multiplicity)
        nothing = float("nan")
        bound = 0.0 if found.bound is None else found.bound
        return Choice(found.chosen, nothing, nothing, bound, found.reason)
