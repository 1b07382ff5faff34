"""Kinds of estimates: the kind of a number determines its interval, so nobody chooses an interval by hand.

One file with all kinds that a metric can have.

``estimate`` takes columns ``[n, C]`` of C candidates (or ``[n]`` of one) and the ``cluster [n]`` of each row, None
where rows are independent, and returns an estimate for each candidate.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_steer.errors import UserError
from lightning_steer.statistics import intervals
from lightning_steer.statistics.columns import Clusters, as_clusters, as_columns, singletons
from lightning_steer.statistics.estimate import BY_DEFINITION, Estimate
from lightning_steer.statistics.jackknife import jackknife

MOST_WEIGHTS = 2**23
"""Number of jackknife weights that are held in memory at a time."""
ONE_CLUSTER = "none: a single cluster says nothing about others"
ONE_ROW = "none: a single row says nothing about others"
CARRIED = "none: it may be carried by a few rows, as nothing bounds how far off a row may be"
TOO_FEW = (
    f"none: nothing bounds a row, and fewer than {intervals.ENOUGH} rows or clusters may hold none of those that "
    "decide the mean"
)
UNSEEN = ", too narrow if a few rows in a hundred lie far from all others"
NOT_FINITE = "none: a value is not finite"
NO_SPREAD = "none: it is the same whatever rows are left out, or has no value without some of them"


class Intervals(NamedTuple):
    """Values and ends of C candidates, ``[C]`` each."""

    value: NDArray
    low: NDArray
    high: NDArray
    how: str

    @classmethod
    def none(cls, value: NDArray, reason: str) -> "Intervals":
        """Return values without an interval."""
        return cls(value, np.full_like(value, np.nan), np.full_like(value, np.nan), reason)

    def estimates(self, n: int, clusters: Clusters | None) -> list[Estimate]:
        """Return a record for each candidate."""
        count = None if clusters is None else len(clusters.sizes)
        return [
            Estimate(value, low, high, n, count, self.how if _given(value, low, high) else _reason(value, self.how))
            for value, low, high in zip(self.value.tolist(), self.low.tolist(), self.high.tolist(), strict=True)
        ]


def _given(value: float, low: float, high: float) -> bool:
    return not (math.isnan(low) or math.isnan(high) or math.isnan(value))


def _reason(value: float, how: str) -> str:
    if how.startswith("none"):
        return how
    return NO_SPREAD if math.isfinite(value) else NOT_FINITE


class Kind(ABC):
    """Determines the interval of what a column estimates."""

    @abstractmethod
    def interval(self, columns: NDArray, clusters: Clusters | None) -> Intervals:
        """Return values and ends for ``columns [n, C]``."""

    def estimate(self, columns: ArrayLike, cluster: ArrayLike | None = None) -> list[Estimate]:
        """Return an estimate for each of C candidates.

        Args:
            columns: ``[n, C]`` or ``[n]``.
            cluster: ``[n]`` the cluster of each row as any numbers; None: rows are independent.

        Raises:
            ValueError: a value is impossible for this kind, or the shape is wrong.
        """
        table = as_columns(columns)
        clusters = as_clusters(cluster, len(table))
        finite = np.atleast_1d(np.isfinite(table).all(0))
        if finite.all():
            return self.interval(table, clusters).estimates(len(table), clusters)
        estimates = self.interval(np.where(finite, table, 0.0), clusters).estimates(len(table), clusters)
        with np.errstate(invalid="ignore"):
            means = table.mean(0).tolist()
        missing = [Estimate(m, math.nan, math.nan, len(table), e.clusters, NOT_FINITE)
                   for m, e in zip(means, estimates, strict=True)]  # fmt: skip
        return [e if ok else m for e, m, ok in zip(estimates, missing, finite, strict=True)]


def _same(values: NDArray, value: NDArray) -> NDArray:
    """Return whether ``values [T, C]`` equal ``value [C]`` up to rounding, ``[C]``."""
    with np.errstate(invalid="ignore"):
        return np.asarray((np.abs(values - value) <= 1e-9 * np.maximum(1, np.abs(value))).all(0))


def _within(columns: NDArray, low: float, high: float) -> NDArray:
    """Clip rounding errors beyond the range; raise ValueError for larger ones."""
    slack = 1e-6 * (high - low) if math.isfinite(high - low) else 1e-9
    outside = columns[(columns < low - slack) | (columns > high + slack)]
    if len(outside):
        raise UserError(f"values lie between {low:g} and {high:g}, not at {outside[0]:g}: declare their true range")
    return np.clip(columns, low, high)


def _among(columns: NDArray, allowed: tuple[float, ...], what: str) -> None:
    outside = columns[~np.isin(columns, allowed)]
    if len(outside):
        raise UserError(f"{what}, not {outside[0]:g}: declare a bounded mean for graded values")


@dataclass(frozen=True)
class Share(Kind):
    """A share of yes among rows of 0 and 1: exact, or Korn & Graubard's for clusters."""

    def interval(self, columns: NDArray, clusters: Clusters | None) -> Intervals:
        """Return values and ends for ``columns [n, C]``."""
        _among(columns, (0, 1), "a share is of rows that are 0 or 1")
        n, mean = len(columns), columns.mean(0)
        if clusters is None:
            return Intervals(mean, *intervals.clopper_pearson(columns.sum(0), n), "exact (Clopper-Pearson)")
        if len(clusters.sizes) < 2:
            return Intervals.none(mean, ONE_CLUSTER)
        return Intervals(mean, *intervals.korn_graubard(columns, clusters), "clusters (Korn-Graubard)")


@dataclass(frozen=True)
class Mean(Kind):
    """A mean of rows in ``[low, high]``: Student's interval, wider if few rows or clusters may decide it.

    With no bounds there is none below 10 rows or clusters, and above that it takes rows for no more skewed than an
    exponential law: with few rows it is too narrow where one in ten lies far off (docs/coverage.md says
    how much). With one open end, as a KL has it, a
    few rows may carry the mean: Student's interval holds in .73 to .95 of lognormal and Pareto samples of 30 to 500
    rows, so there is none.

    Args:
        low: smallest value of a row.
        high: largest value of a row.
        steady: no row lies far from most others, by more than a tenth of the range; an answer that flips does.
    """

    low: float = -math.inf
    high: float = math.inf
    steady: bool = False

    def interval(self, columns: NDArray, clusters: Clusters | None) -> Intervals:
        """Return values and ends for ``columns [n, C]``."""
        values, units = _within(columns, self.low, self.high), clusters or singletons(len(columns))
        if len(units.sizes) < 2:
            return Intervals.none(columns.mean(0), ONE_ROW if clusters is None else ONE_CLUSTER)
        if math.isfinite(self.low) != math.isfinite(self.high):
            return Intervals.none(columns.mean(0), CARRIED)
        bounded = math.isfinite(self.high - self.low)
        if not bounded and len(units.sizes) < intervals.ENOUGH:
            return Intervals.none(columns.mean(0), TOO_FEW)
        low, high = intervals.bounded_mean(values, units, self.low, self.high, self.steady)
        if not bounded:  # without any variation the error is unknown
            means = units.sums(values) / units.sizes[:, None]
            is_constant = _same(means, means[0])
            low, high = (np.where(is_constant, np.nan, end) for end in (low, high))
        how = "t, skew-adjusted" if clusters is None else "t over clusters (CR2), skew-adjusted"
        how += ", wider where few rows or clusters may decide it" if bounded else UNSEEN
        return Intervals(columns.mean(0), low, high, how)


@dataclass(frozen=True)
class Change(Kind):
    """A paired change of a share, -1, 0 or 1 in each row: Tango's score interval, or one over clusters."""

    low: float = -1.0
    high: float = 1.0

    def interval(self, columns: NDArray, clusters: Clusters | None) -> Intervals:
        """Return values and ends for ``columns [n, C]``."""
        _among(columns, (-1, 0, 1), "a change of a share is -1, 0 or 1 in each row")
        mean = columns.mean(0)
        if clusters is None:
            ends = intervals.tango((columns > 0).sum(0), (columns < 0).sum(0), len(columns))
            return Intervals(mean, *ends, "score (Tango)")
        if len(clusters.sizes) < 2:
            return Intervals.none(mean, ONE_CLUSTER)
        ends = intervals.bounded_mean(columns, clusters, -1.0, 1.0)
        how = "t over clusters (CR2), skew-adjusted, wider where few rows or clusters may decide it"
        return Intervals(mean, *ends, how)


@dataclass(frozen=True)
class Quantile(Kind):
    """The quantile q of rows, by order statistics; with too few rows an end is infinite."""

    q: float

    def interval(self, columns: NDArray, clusters: Clusters | None) -> Intervals:
        """Return values and ends for ``columns [n, C]``."""
        value = np.quantile(columns, self.q, axis=0, method="inverted_cdf")
        if clusters is None:
            low, high = intervals.order_statistics(columns, self.q)
        elif len(clusters.sizes) < 2:
            return Intervals.none(value, ONE_CLUSTER)
        else:
            low, high = intervals.clustered_quantile(columns, clusters, self.q)
        return Intervals(value, low, high, "order statistics")

    def estimate(self, columns: ArrayLike, cluster: ArrayLike | None = None) -> list[Estimate]:
        """Return an estimate for each candidate, which says when an end is open."""
        open_ends = {(True, False): ", no lower end", (False, True): ", no upper end", (True, True): ", no ends"}
        return [
            e._replace(how=e.how + open_ends.get((e.low == -math.inf, e.high == math.inf), ""))
            for e in super().estimate(columns, cluster)
        ]


@dataclass(frozen=True)
class Smooth:
    """A smooth statistic of rows, by the jackknife with Student's t: AUC, Cohen's d, ratios, SS, LMS and ICAT.

    A statistic that no left-out row changes would get no width: at a finite bound, or at 0, it gets that
    of an exact share of T clusters.
    """

    function: Callable[..., NDArray]
    """Takes weights ``[R, n]`` and columns ``[n, C]``, returns ``[R, C]``."""
    low: float = -math.inf
    high: float = math.inf

    def estimate(self, *columns: ArrayLike, cluster: ArrayLike | None = None) -> list[Estimate]:
        """Return an estimate for each of C candidates from as many columns ``[n, C]`` as the function takes."""
        tables = [as_columns(column) for column in columns]
        n = len(tables[0])
        clusters = as_clusters(cluster, n)
        return self.interval(tables, clusters).estimates(n, clusters)

    def interval(self, tables: list[NDArray], clusters: Clusters | None) -> Intervals:
        """Return values and ends."""
        n = len(tables[0])
        units = clusters or singletons(n)
        value = np.asarray(self.function(np.ones((1, n)), *tables), dtype=np.float64)[0]
        count = len(units.sizes)
        if count < 2:
            return Intervals.none(value, ONE_ROW if clusters is None else ONE_CLUSTER)
        parts = np.array_split(np.arange(count), -(-count * n // MOST_WEIGHTS))
        weights = ((units.of_row != part[:, None]).astype(np.float64) for part in parts)
        left_out = np.concatenate([np.asarray(self.function(w, *tables), dtype=np.float64) for w in weights])
        _, low, high = jackknife(value, left_out, self.low, self.high)
        is_constant = _same(left_out, value)
        reach = float(intervals.clopper_pearson(0, count)[1]) * max(abs(self.low), abs(self.high))
        if math.isfinite(reach):
            low = np.where(is_constant, np.maximum(value - reach, self.low), low)
            high = np.where(is_constant, np.minimum(value + reach, self.high), high)
        else:
            low, high = (np.where(is_constant, np.nan, end) for end in (low, high))
        units_name = "rows" if clusters is None else "clusters"
        return Intervals(value, low, high, f"jackknife-t over {units_name}")


@dataclass(frozen=True)
class Fixed:
    """A number known by definition, such as the baseline's change from itself: no interval."""

    value: float

    def estimate(self, columns: ArrayLike, cluster: ArrayLike | None = None) -> list[Estimate]:
        """Return the value for each of C candidates of ``columns [n, C]``."""
        table = as_columns(columns)
        clusters = as_clusters(cluster, len(table))
        count = None if clusters is None else len(clusters.sizes)
        return [Estimate(self.value, math.nan, math.nan, len(table), count, BY_DEFINITION)] * table.shape[1]
