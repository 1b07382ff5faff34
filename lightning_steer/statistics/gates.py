"""The threshold of a gate: how high must a score be for a row to be steered, if few others may be?

The promise holds for any law of the scores: with confidence 1 - delta over calibration sets, at most a share eta of the
rows that should be left alone passes. If j of n independent calibration rows lie above a threshold that is itself the
next lower one, the share of the law above it is at most Beta(j + 1, n - j) distributed (exactly so without ties), so it
exceeds eta with probability P(Binomial(n, eta) <= j) at most. (Wilks 1941, Ann. Math. Stat. 12; the same sum as
Clopper & Pearson's.)
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, binom

from lightning_steer.errors import UserError
from lightning_steer.statistics.columns import Clusters, as_clusters, as_columns
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Share


class Gate(NamedTuple):
    """A threshold with its promise, and what it leaves."""

    threshold: float
    """Rows with a larger score are steered; infinite: none is, as too few rows were given."""
    allowed: int
    """Calibration rows that should be left alone and have a larger score; of clusters, clusters that hold one."""
    bound: float
    """At most this share of such rows is steered, at confidence 1 - delta; never above eta."""
    n: int
    """Number of calibration rows that should be left alone."""
    clusters: int | None
    """Number of their clusters; None if rows are independent."""
    power: Estimate
    """Share of the rows that should be steered and are. The threshold does not depend on them."""
    reason: str


class KeptGate(NamedTuple):
    """A calibrated gate in the numbers that a file keeps."""

    leave: float
    """Rows that should be left alone."""
    steer: float
    """Rows that should be steered."""
    bound: float
    """Share of the former that is steered, at most, at confidence 1 - delta."""
    power: float
    """Share of the latter that is steered, with its interval."""
    low: float
    high: float

    @classmethod
    def of(cls, gate: Gate) -> "KeptGate":
        """Return the numbers of a gate."""
        return cls(gate.n, gate.power.n, gate.bound, *gate.power[:3])

    def estimates(self, delta: float) -> list[Estimate]:
        """Return the power, and the bound, which is broken at a risk of delta."""
        return [
            Estimate(self.power, self.low, self.high, int(self.steer), None, "exact (Clopper-Pearson)"),
            Estimate(self.bound, math.nan, self.bound, int(self.leave), None, f"at most, at confidence {1 - delta:g}"),
        ]


def check(eta: float, delta: float) -> None:
    """Raise ValueError unless both are shares strictly between 0 and 1."""
    for name, value in (("eta, the share of wrong gates,", eta), ("delta, the risk of more,", delta)):
        if not 0 < value < 1:
            raise UserError(f"{name} lies between 0 and 1, not at {value}")


def fewest(eta: float, delta: float) -> int:
    """Return how many independent rows (or clusters) that should be left alone a gate needs."""
    check(eta, delta)
    return math.ceil(math.log(delta) / math.log1p(-eta) - 1e-9)


def allowed(n: int, eta: float, delta: float) -> int | None:
    """Return how many of n rows that should be left alone may lie above the threshold; None if n is too few."""
    check(eta, delta)
    if n < fewest(eta, delta):
        return None
    below = np.arange(n)
    return int(np.flatnonzero(binom.cdf(below, n, eta) <= delta * (1 + 1e-12))[-1])


def thresholds(leave: ArrayLike, eta: float, delta: float, cluster: ArrayLike | None = None) -> NDArray:
    """Return the least thresholds ``[C]`` that keep the promise, for C scores; infinite if the rows are too few.

    Args:
        leave: ``[n, C]`` or ``[n]`` scores of calibration rows that should be left alone. They are independent draws,
            and nothing was fitted to them.
        eta: the largest share of such rows that may be steered.
        delta: accepted risk that it is larger.
        cluster: ``[n]`` the cluster of each row; None: rows are independent. Of clusters a share eta at most has a row
            that is steered, so that at most this share of rows is, each cluster counting once.

    Raises:
        ValueError: a score is not finite, or a share is impossible.
    """
    scores = _finite(leave)
    scores = _worst(scores, as_clusters(cluster, len(scores)))
    count = allowed(len(scores), eta, delta)
    if count is None:
        return np.full(scores.shape[1], np.inf)
    return np.partition(scores, len(scores) - 1 - count, axis=0)[len(scores) - 1 - count]


def calibrate(
    steer: ArrayLike,
    leave: ArrayLike,
    eta: float,
    delta: float,
    steer_cluster: ArrayLike | None = None,
    leave_cluster: ArrayLike | None = None,
) -> Gate:
    """Return the gate with the most power that keeps the promise of :func:`thresholds`.

    Args:
        steer: ``[m]`` scores of calibration rows that should be steered.
        leave: ``[n]`` scores of calibration rows that should be left alone.
        eta: the largest share of the latter that may be steered.
        delta: accepted risk that it is larger.
        steer_cluster: ``[m]`` the cluster of each row; None: rows are independent.
        leave_cluster: ``[n]`` the same.
    """
    steered, left = _finite(steer), _finite(leave)
    clusters = as_clusters(leave_cluster, len(left))
    threshold = float(thresholds(left, eta, delta, leave_cluster)[0])
    units, unit = len(_worst(left, clusters)), "rows" if clusters is None else "clusters"
    count = allowed(units, eta, delta)
    power = Share().estimate((steered > threshold).astype(float), steer_cluster)[0]
    if count is None:
        reason = (
            f"no row is steered: {units} {unit} that should be left alone are too few to promise wrong gates of at "
            f"most {eta:g} at confidence {1 - delta:g}; {fewest(eta, delta)} are needed"
        )
        return Gate(threshold, 0, 0.0, len(left), None if clusters is None else units, power, reason)
    bound = float(beta.ppf(1 - delta, count + 1, units - count))
    reason = (
        f"at most {bound:.4f} of the {unit} that should be left alone are steered, at confidence {1 - delta:g}: "
        f"{count} of {units} were; of the rows that should be steered {power} are"
    )
    return Gate(threshold, count, bound, len(left), None if clusters is None else units, power, reason)


def _finite(scores: ArrayLike) -> NDArray:
    columns = as_columns(scores)
    if not np.isfinite(columns).all():
        raise UserError("a score of the condition is NaN or infinite: no threshold follows from it")
    return columns


def _worst(scores: NDArray, clusters: Clusters | None) -> NDArray:
    """Return the largest score of each cluster, ``[T, C]``: a cluster has a wrong gate if one of its rows has."""
    if clusters is None:
        return scores
    starts = np.concatenate([[0], np.cumsum(clusters.sizes)[:-1]]).astype(int)
    return np.maximum.reduceat(scores[np.argsort(clusters.of_row, kind="stable")], starts, axis=0)
