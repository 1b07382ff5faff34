"""How several candidates share the risk of a false certificate."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


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


def holm(p: ArrayLike) -> NDArray:
    """Return p-values ``[m]`` of m claims so adjusted that each may be compared with the level by itself.

    The chance of any false claim among them stays below the level, however they depend (Holm 1979, Scand. J. Stat. 6).
    """
    p = np.asarray(p, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values lie between 0 and 1, not {p[~((p >= 0) & (p <= 1))][0]}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted
