"""The candidate with the best benefit among those that keep every promise, or none: Learn-then-Test.

A promise says that the true mean change of a measure lies above a limit (a harm's limit is met with its sign turned).
A candidate keeps all of them only if it keeps each, so the p-value of "it breaks some promise" is the largest of the
promises' p-values (intersection-union, Berger 1982, Technometrics 24:295); K candidates share delta by Bonferroni's
rule (Angelopoulos et al. 2021, arXiv 2110.01052). So the chance of choosing one that breaks any promise is at most
delta, however the measures and candidates depend on each other, and whatever is chosen by among the certified.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_steer.statistics.bounds import Betting, ExactPaired, check
from lightning_steer.statistics.columns import Clusters, as_clusters

EXACT, BETTING = ExactPaired(), Betting()
MOST_EXACT = 1000
"""Rows beyond which betting takes the place of the exact test, whose tables of N^2 numbers then take seconds."""
BY_EXACT = "exact paired test"
BY_BETTING = "betting on the range"
BY_CLUSTERS = "betting on the clusters' means, each cluster counting once"


@dataclass(frozen=True)
class Promise:
    """The true mean change of every candidate that is chosen lies above ``limit``.

    Args:
        name: what is promised, for messages.
        changes: ``[K, n]`` change of each row under each of K candidates, turned so that more is better; of an integer
            type if -1, 0 and 1 are all that a row can change by.
        low: least change that a row can have at all.
        high: largest change that a row can have.
        limit: what the mean change must exceed.
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
            raise ValueError(f"{self.name}: changes are [K, n], not of shape {list(self.changes.shape)}")
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{self.name}: the range of a change must be finite, not {self.low:g} to {self.high:g}")
        if not self.low <= self.limit < self.high:
            raise ValueError(
                f"{self.name}: the limit lies between {self.low:g} and {self.high:g}, the range of a change, "
                f"not at {self.limit:g}"
            )
        if not ((self.changes >= self.low) & (self.changes <= self.high)).all():
            raise ValueError(f"{self.name}: changes lie between {self.low:g} and {self.high:g}, and none is NaN")


class Kept(NamedTuple):
    """How sure it is that each of K candidates keeps one promise."""

    certified: NDArray
    """``[K]`` whether its p-value is below the candidate's share of delta."""
    p: NDArray
    """``[K]`` p-value of "the promise is broken"."""
    estimate: NDArray
    """``[K]`` mean change, over clusters where there are any."""
    needed: list[int | None]
    """Units like these that would certify each candidate; None where no number would."""
    least: int | None
    """Units that would certify it if none of them changed; None where the limit asks for a change."""
    units: int
    """Number of rows, or of clusters."""
    how: str


class Choice(NamedTuple):
    """The choice among K candidates under several promises."""

    chosen: int | None
    """Index of the certified candidate with the largest mean change of the first promise; None: do not steer."""
    certified: NDArray
    """``[K]`` whether every promise is certified."""
    p: NDArray
    """``[K]`` the largest of a candidate's p-values."""
    kept: list[Kept]
    """By promise."""
    risk: float
    """delta / K, what each p-value is compared with."""


def choose(promises: Sequence[Promise], delta: float) -> Choice:
    """Choose the candidate that certainly keeps every promise and has the largest observed change of the first one.

    Args:
        promises: at least one, each of the same K candidates, ordered from the weakest to the strongest; rows had no
            part in making the candidates.
        delta: accepted risk that the chosen candidate breaks any promise.

    Raises:
        ValueError: no promise, promises of different candidates, or an impossible delta.
    """
    candidates = {len(promise.changes) for promise in promises}
    if len(candidates) != 1:
        raise ValueError(f"promises are of the same candidates, at least one, not of {sorted(candidates)}")
    k = candidates.pop()
    check(delta, k=k)
    kept = [keep(promise, delta / k) for promise in promises]
    certified = np.all([one.certified for one in kept], axis=0)
    benefit = np.where(certified, kept[0].estimate, -np.inf)
    chosen = int(np.argmax(benefit)) if certified.any() else None
    return Choice(chosen, certified, np.max([one.p for one in kept], axis=0), kept, delta / k)


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
    more = [None if sure else BETTING.enough(row, limit, risk) for row, sure in zip(scaled, certified, strict=True)]
    needed = [n if sure else rows and max(rows, n + 1) for rows, sure in zip(more, certified, strict=True)]
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
    still = 2 * -promise.low / (promise.high - promise.low) - 1
    limit = 2 * (promise.limit - promise.low) / (promise.high - promise.low) - 1
    return BETTING.enough(np.array([still]), limit, risk)


def _exact(promise: Promise, clusters: Clusters | None) -> bool:
    return clusters is None and _whole(promise) and promise.changes.shape[1] <= MOST_EXACT


def _whole(promise: Promise) -> bool:
    return np.issubdtype(promise.changes.dtype, np.integer) and (promise.low, promise.high) == (-1, 1)


def _counts(changes: NDArray) -> tuple[NDArray, NDArray]:
    return (changes == 1).sum(-1), (changes == -1).sum(-1)


def _units(promise: Promise, clusters: Clusters | None) -> tuple[NDArray, NDArray, float]:
    """Return values ``[K, T]`` of rows or clusters, the same stretched to [-1, 1], and the limit so stretched."""
    values = promise.changes.astype(np.float64)
    if clusters is not None:
        values = (clusters.sums(values.T) / clusters.sizes[:, None]).T
    width = promise.high - promise.low
    scaled = np.clip(2 * (values - promise.low) / width - 1, -1, 1)
    return values, scaled, 2 * (promise.limit - promise.low) / width - 1
