"""Choose the candidate with the largest benefit among those that keep every promise, or none: Learn-then-Test.

A promise states that the true mean change of a measure lies above a limit (harms enter with reversed sign).
A candidate keeps all of them only if it keeps each, so the p-value of "it breaks some promise" is the largest of the
promises' p-values (intersection-union, Berger 1982, Technometrics 24:295); K candidates share delta by Bonferroni's
rule (Angelopoulos et al. 2021, arXiv 2110.01052). So the chance of choosing one that breaks any promise is at most
delta, under any dependence of measures and candidates, and any rule of choice among the certified.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_steer.errors import UserError
from lightning_steer.statistics.bounds import Betting, ExactPaired, check
from lightning_steer.statistics.columns import Clusters, as_clusters

EXACT, BETTING = ExactPaired(), Betting()
MOST_EXACT = 1000
"""With more rows, betting replaces the exact test, whose tables of N^2 numbers then take seconds."""
BY_EXACT = "exact paired test"
BY_BETTING = "betting on the range"
BY_CLUSTERS = "betting on the clusters' means, each cluster counting once"


@dataclass(frozen=True)
class Promise:
    """The true mean change of every candidate that is chosen lies above ``limit``.

    Args:
        name: name of the promise, for messages.
        changes: ``[K, n]`` change of each row under each of K candidates, signed so that larger is better; an integer
            type if -1, 0 and 1 are all that a row can change by.
        low: smallest change that a row can have at all.
        high: largest change that a row can have.
        limit: the value that the mean change must exceed.
        cluster: ``[n]`` the cluster of each row; None: rows are independent.
    """

    name: str
    changes: NDArray
    low: float
    high: float
    limit: float
    cluster: NDArray | None = None

    def __post_init__(self) -> None:
        if self.changes.ndim != 2 or not self.changes.size:
            raise UserError(f"{self.name}: changes are [K, n], not of shape {list(self.changes.shape)}")
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise UserError(f"{self.name}: the range of a change must be finite, not {self.low:g} to {self.high:g}")
        if not self.low <= self.limit < self.high:
            raise UserError(
                f"{self.name}: the limit lies between {self.low:g} and {self.high:g}, the range of a change, "
                f"not at {self.limit:g}"
            )
        if not ((self.changes >= self.low) & (self.changes <= self.high)).all():
            raise UserError(f"{self.name}: changes lie between {self.low:g} and {self.high:g}, and none is NaN")


class Kept(NamedTuple):
    """The evidence that each of K candidates keeps one promise."""

    certified: NDArray
    """``[K]`` whether its p-value is below the candidate's share of delta."""
    p: NDArray
    """``[K]`` p-value of "the promise is broken"."""
    estimate: NDArray
    """``[K]`` mean change, over clusters if there are any."""
    needed: list[int | None]
    """Number of units like these that would certify each candidate; None if no number would."""
    least: int | None
    """Number of units that would certify it if none of them changed; None if the limit requires a change."""
    units: int
    """Number of rows, or of clusters."""
    how: str


class CertifiedChoice(NamedTuple):
    """The choice among K candidates under several promises."""

    chosen: int | None
    """Index of the certified candidate with the largest mean change of the first promise; None: do not steer."""
    certified: NDArray
    """``[K]`` whether every promise is certified."""
    p: NDArray
    """``[K]`` the largest of a candidate's p-values."""
    kept: list[Kept]
    """The evidence for each promise."""
    risk: float
    """delta / K, the level of each p-value."""


def choose(promises: Sequence[Promise], delta: float) -> CertifiedChoice:
    """Choose the candidate that certainly keeps every promise and has the largest observed change of the first one.

    Args:
        promises: at least one, all of the same K candidates, ordered from the weakest to the strongest; the rows were
            not used to make the candidates.
        delta: accepted risk that the chosen candidate breaks any promise.

    Raises:
        ValueError: no promise, promises of different candidates, or an impossible delta.
    """
    candidates = {len(promise.changes) for promise in promises}
    if len(candidates) != 1:
        raise UserError(f"promises are of the same candidates, at least one, not of {sorted(candidates)}")
    k = candidates.pop()
    check(delta, k=k)
    results = [keep(promise, delta / k) for promise in promises]
    certified = np.all([result.certified for result in results], axis=0)
    benefit = np.where(certified, results[0].estimate, -np.inf)
    chosen = int(np.argmax(benefit)) if certified.any() else None
    return CertifiedChoice(chosen, certified, np.max([result.p for result in results], axis=0), results, delta / k)


def keep(promise: Promise, risk: float) -> Kept:
    """Test one promise for each candidate at this risk."""
    clusters = as_clusters(promise.cluster, promise.changes.shape[1])
    values, scaled, limit = _units(promise, clusters)
    n = values.shape[1]
    if _exact(promise, clusters):
        p, how = EXACT.p_value(*_counts(promise.changes), n, promise.limit, risk), BY_EXACT
    else:
        p, how = BETTING.p_value(scaled, limit, risk), BY_BETTING if clusters is None else BY_CLUSTERS
    certified = p < risk
    enough = [None if sure else BETTING.enough(row, limit, risk) for row, sure in zip(scaled, certified, strict=True)]
    needed = [n if sure else rows and max(rows, n + 1) for rows, sure in zip(enough, certified, strict=True)]
    return Kept(certified, p, values.mean(1), needed, _least(promise, clusters, risk), n, how)


def _least(promise: Promise, clusters: Clusters | None, risk: float) -> int | None:
    """Return the fewest units that certify the promise if none changes.

    A law that changes rows by the least, as often as breaks the promise, leaves all n of them with chance
    ``(1 - limit / low)^n``, which any test must find below the risk; the exact test does no worse.
    """
    if promise.limit >= 0:
        return None
    if _whole(promise) and clusters is None:
        fewest = math.floor(math.log(risk) / math.log1p(-promise.limit / promise.low)) + 1
        if fewest <= MOST_EXACT:
            return fewest
    unchanged = 2 * -promise.low / (promise.high - promise.low) - 1
    limit = 2 * (promise.limit - promise.low) / (promise.high - promise.low) - 1
    return BETTING.enough(np.array([unchanged]), limit, risk)


def _exact(promise: Promise, clusters: Clusters | None) -> bool:
    return clusters is None and _whole(promise) and promise.changes.shape[1] <= MOST_EXACT


def _whole(promise: Promise) -> bool:
    return np.issubdtype(promise.changes.dtype, np.integer) and (promise.low, promise.high) == (-1, 1)


def _counts(changes: NDArray) -> tuple[NDArray, NDArray]:
    return (changes == 1).sum(-1), (changes == -1).sum(-1)


def _units(promise: Promise, clusters: Clusters | None) -> tuple[NDArray, NDArray, float]:
    """Return values ``[K, T]`` of rows or clusters, the same scaled to [-1, 1], and the scaled limit."""
    values = promise.changes.astype(np.float64)
    if clusters is not None:
        values = (clusters.sums(values.T) / clusters.sizes[:, None]).T
    width = promise.high - promise.low
    scaled = np.clip(2 * (values - promise.low) / width - 1, -1, 1)
    return values, scaled, 2 * (promise.limit - promise.low) / width - 1
