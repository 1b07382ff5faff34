"""How several candidates share the risk of a false certificate."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class Multiplicity(ABC):
    """How K candidates share the risk delta."""

    @abstractmethod
    def share(self, delta: float, k: int) -> float:
        """The risk of each of k bounds."""

    @abstractmethod
    def judge(self, lower: NDArray, epsilon: float) -> tuple[NDArray, NDArray]:
        """Which candidates are certified ``[..., K]``, and bounds that hold for all of these at once ``[..., K]``."""


@dataclass(frozen=True)
class Bonferroni(Multiplicity):
    """Each candidate at delta/K: all bounds hold together."""

    def share(self, delta: float, k: int) -> float:
        return delta / k

    def judge(self, lower: NDArray, epsilon: float) -> tuple[NDArray, NDArray]:
        return lower > epsilon, lower


@dataclass(frozen=True)
class FixedSequence(Multiplicity):
    """Each candidate at full delta, in an order declared beforehand, up to the first that fails.

    The bounds do not hold together: of those that passed it is certain only that they exceed epsilon, or, if none
    failed, the least of all bounds (Hsu & Berger 1999, stepwise confidence intervals).

    Args:
        strongest_first: go from the strongest candidate to the weakest.
    """

    strongest_first: bool = False

    def share(self, delta: float, k: int) -> float:
        return delta

    def judge(self, lower: NDArray, epsilon: float) -> tuple[NDArray, NDArray]:
        order = slice(None, None, -1 if self.strongest_first else 1)
        passed = np.logical_and.accumulate((lower > epsilon)[..., order], -1)[..., order]
        return passed, np.where(passed, np.maximum(lower.min(-1, keepdims=True), epsilon), -1.0)
