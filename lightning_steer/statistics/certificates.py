"""Decide whether to steer at all: certify a candidate on calibration rows, or abstain.

A candidate is certified if a lower confidence bound of its mean change exceeds epsilon, corrected for the number of
candidates. The promise: the chance, over calibration splits, of choosing one whose true mean change is epsilon or less
is at most delta. After Hedström et al. 2025 (MERA), arXiv 2510.13290, whose constant is that of range 1 where the
change has range 2.
"""

from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_steer.errors import UserError
from lightning_steer.statistics.bounds import Betting, Bound, ExactPaired, check
from lightning_steer.statistics.columns import Clusters, as_clusters
from lightning_steer.statistics.multiplicity import Bonferroni, Multiplicity


class Certificate(NamedTuple):
    """The choice among K candidates."""

    chosen: int | None
    """Index of the certified candidate with the best bound, the weaker one in ties; None: do not steer."""
    bound: float | None
    """The certificate: the true improvement of the chosen candidate is larger than this."""
    lower: NDArray
    """``[K]`` lower confidence bound of each candidate, at its share of delta."""
    estimate: NDArray
    """``[K]`` mean improvement on the calibration rows."""
    certified: NDArray
    """``[K]`` bool."""
    reason: str
    """Reason for this candidate, or for none."""


EXACT, BETTING, BONFERRONI = ExactPaired(), Betting(), Bonferroni()


def certify(
    changes: ArrayLike,
    low: float,
    high: float,
    cluster: ArrayLike | None = None,
    delta: float = 0.01,
    epsilon: float = 0.0,
    bound: Bound | None = None,
    multiplicity: Multiplicity | None = None,
) -> Certificate:
    """Choose the candidate that certainly improves, and by the most; or none.

    Whole numbers -1, 0 and 1 (an integer type) of independent rows are judged by the exact paired bound, other values
    of independent rows by betting on the range. Rows in clusters are judged by betting on the clusters' means. Each
    cluster counts once, so the promise is about the mean over clusters. Expect abstention below some 50 clusters.

    Args:
        changes: ``[K, n]`` change of each row under each of K candidates, ordered from the weakest to the strongest.
            The rows were not used to make the candidates.
        low: smallest change that a row can have at all, -1 for a share.
        high: largest change that a row can have.
        cluster: ``[n]`` the cluster of each row; None: rows are independent draws from the target population.
        delta: accepted risk that the chosen candidate's true change is epsilon or less.
        epsilon: the change that must be exceeded; negative to tolerate a loss.
        bound: lower confidence bound; None for the suitable one.
        multiplicity: correction for the choice among K; None for Bonferroni's.

    Raises:
        ValueError: naming the value and what was expected.
    """
    changes, multiplicity = np.asarray(changes), multiplicity or BONFERRONI
    if changes.ndim != 2:
        raise UserError(f"changes are [K, n], a row for each candidate, not of shape {list(changes.shape)}")
    k, n = changes.shape
    _check_range(changes, low, high)
    check(delta, 0.0, n, k)
    if not low <= epsilon < high:
        raise UserError(f"epsilon is a change, at least {low:g} and below {high:g}, not {epsilon}")
    clusters, risk = as_clusters(cluster, n), multiplicity.share(delta, k)
    if clusters is None and np.issubdtype(changes.dtype, np.integer) and (low, high) == (-1, 1):
        return _choose(_Counts(changes, bound or EXACT), delta, risk, epsilon, multiplicity)
    if bound is not None and not isinstance(bound, Betting):
        raise UserError(f"{type(bound).__name__} counts gains and harms of independent rows: take Betting here")
    return _choose(_Graded(changes, low, high, clusters, bound or BETTING), delta, risk, epsilon, multiplicity)


def _check_range(changes: NDArray, low: float, high: float) -> None:
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise UserError(f"the range of changes must be finite and declared, low below high, not {low} to {high}")
    if changes.dtype == bool:
        raise UserError("changes are differences of outcomes, steered minus baseline, not booleans")
    if np.isnan(changes).any():
        raise UserError("a change is NaN: every row must have an outcome with and without steering")
    outside = changes[(changes < low) | (changes > high)]
    if outside.size:
        raise UserError(f"changes lie between {low:g} and {high:g} as declared, not at {outside[0]:g}")


class _Counts:
    """Gains and harms of independent rows."""

    def __init__(self, changes: NDArray, bound: Bound) -> None:
        self.changes, self.bound, self.what = changes, bound, ""
        self.estimate = changes.mean(1)

    def lower(self, risk: float) -> NDArray:
        return self.bound.lower(self.changes, risk)

    def seen(self, best: int) -> str:
        gains, harms = (int((self.changes[best] == sign).sum()) for sign in (1, -1))
        return f"{gains} gains and {harms} harms in {self.changes.shape[1]} rows"

    def why_none(self, best: int, risk: float, epsilon: float) -> str:
        k, n = self.changes.shape
        net = int(self.changes[best].sum())
        return _why_none(self.bound, n, risk, epsilon, k) + f"; the best candidate has {net} ({self.seen(best)})"


class _Graded:
    """Bounded changes of independent rows, or means of clusters, stretched to [-1, 1]."""

    def __init__(self, changes: NDArray, low: float, high: float, clusters: Clusters | None, bound: Betting) -> None:
        self.low, self.high, self.bound = low, high, bound
        self.values = changes.astype(np.float64)
        self.unit, self.what = "rows", ""
        if clusters is not None:
            self.values, self.unit = (clusters.sums(self.values.T) / clusters.sizes[:, None]).T, "clusters"
            self.what = f" the mean over {len(clusters.sizes)} clusters, each counting once,"
        self.estimate = self.values.mean(1)
        self.scaled = self._scale(self.values)

    def _scale(self, values: NDArray | float) -> NDArray:
        return np.clip(2 * (np.asarray(values) - self.low) / (self.high - self.low) - 1, -1, 1)

    def lower(self, risk: float) -> NDArray:
        return self.low + (self.bound.lower_in_range(self.scaled, risk) + 1) / 2 * (self.high - self.low)

    def seen(self, best: int) -> str:
        return f"a mean change of {self.estimate[best]:.4f} over {self.values.shape[1]} {self.unit}"

    def why_none(self, best: int, risk: float, epsilon: float) -> str:
        mean = float(self._scale(epsilon))
        fewest = self.bound.enough(np.ones(1), mean, risk)
        alike = self.bound.enough(self.scaled[best], mean, risk)
        outlook = (
            f"some {alike} {self.unit} like these would do"
            if alike
            else f"no number of {self.unit} like these would do"
        )
        return (
            f"{self.values.shape[1]} {self.unit} certify none of {len(self.values)} candidates, and {fewest} would be "
            f"needed even if all were the best possible; the best candidate has {self.seen(best)}: {outlook}"
        )


def _choose(
    changes: _Counts | _Graded, delta: float, risk: float, epsilon: float, multiplicity: Multiplicity
) -> Certificate:
    lower = changes.lower(risk)
    k = len(lower)
    certified, certain = multiplicity.judge(lower, epsilon)
    best = int(np.argmax(np.where(certified, lower, -np.inf) if certified.any() else lower))
    if certified[best]:
        chosen, bound = best, float(certain[best])
        reason = (
            f"candidate number {best + 1} of {k} improves{changes.what} by more than {bound:.4f} at confidence "
            f"{1 - delta:g}: {changes.seen(best)}; {certified.sum()} of {k} are certified"
        )
    else:
        chosen, bound = None, None
        reason = changes.why_none(best, risk, epsilon)
        if lower[best] > epsilon:
            reason = (
                f"candidate number {best + 1} of {k} would pass, but one tested before it failed: {changes.seen(best)}"
            )
    return Certificate(chosen, bound, lower, changes.estimate, certified, reason)


@lru_cache(maxsize=256)
def needed(bound: Bound, n: int, k: int, delta: float, epsilon: float = 0.0) -> int | None:
    """Return the fewest gains in n rows, without any harm, that certify one of k candidates at risk delta/k.

    None if not even n gains do: then no calibration of n rows certifies anything. For a fixed sequence use k = 1.
    """
    check(delta, epsilon, n, k)
    fewest = bisect_left(range(n + 1), True, key=lambda gains: _passes(bound, gains, n, delta / k, epsilon))
    return fewest if fewest <= n else None


def _passes(bound: Bound, gains: int, n: int, risk: float, epsilon: float) -> bool:
    return bool(bound.at(np.array([gains]), np.array([0]), n, risk)[0] > epsilon)


def _why_none(bound: Bound, n: int, risk: float, epsilon: float, k: int) -> str:
    fewest = needed(bound, n, 1, risk, epsilon)
    if fewest is not None:
        return f"with {n} rows and {k} candidates {fewest} net gains are needed even without any harm"
    rows = 1 + bisect_left(range(1, 1001), True, key=lambda rows: _passes(bound, rows, rows, risk, epsilon))
    rows_text = f"at least {rows}" if rows <= 1000 else "more than 1000"
    return f"{n} rows are too few to certify anything, {rows_text} are needed even if all are gains"
