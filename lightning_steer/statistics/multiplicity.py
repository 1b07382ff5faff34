"""How several candidates share the risk of a false certificate."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_steer.errors import UserError


class Multiplicity(ABC):
    """How K candidates share the risk delta."""

    @abstractmethod
    def share(self, delta: float, k: int) -> float:
        """Return the risk of each of k bounds."""

    @abstractmethod
    def judge(self, lower: NDArray, epsilon: float) -> tuple[NDArray, NDArray]:
        """Return which candidates are certified, and bounds that hold for all of them jointly, ``[..., K]`` each."""


@dataclass(frozen=True)
class Bonferroni(Multiplicity):
    """Each candidate is tested at delta/K: all bounds hold jointly."""

    def share(self, delta: float, k: int) -> float:
        return delta / k

    def judge(self, lower: NDArray, epsilon: float) -> tuple[NDArray, NDArray]:
        return lower > epsilon, lower


@dataclass(frozen=True)
class FixedSequence(Multiplicity):
    """Each candidate is tested at full delta, in an order declared beforehand, up to the first that fails.

    The bounds do not hold jointly: those that passed certainly exceed only epsilon, or, if none
    failed, the smallest of all bounds (Hsu & Berger 1999, stepwise confidence intervals).

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
    """Return adjusted p-values ``[m]`` of m claims; each may be compared with the level separately.

    The chance of any false claim stays below the level under any dependence (Holm 1979, Scand. J. Stat. 6).
    """
    p = np.asarray(p, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise UserError(f"p-values lie between 0 and 1, not {p[~((p >= 0) & (p <= 1))][0]}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted
