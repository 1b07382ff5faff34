"""The formulas of intervals, for C candidates together."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv
from scipy.stats import binom
from scipy.stats import norm as normal
from scipy.stats import t as student

from lightning_steer.statistics.columns import Clusters, singletons
from lightning_steer.statistics.estimate import LEVEL, NO_INTERVAL, Estimate

Ends = tuple[NDArray, NDArray]
"""Lower and upper ends, ``[C]`` each."""
TAIL = (1 - LEVEL) / 2
FEW = 10
"""With fewer clusters that hold the rarer outcome, their variance is unreliable."""
ENOUGH = 10
"""Rows or clusters below which the mean of what nothing bounds has no interval: of exponential rows Student's interval,
corrected for skew, held in .91 of sets of 6 and in .93 of sets of 10."""
UNITS = 20
"""Networks, seeds or kinds of world below which their mean stands with their range: a few of them do not show how often
another one fails."""
UNIT_RANGE = f"{NO_INTERVAL}the least and the largest of the independent units"


def clopper_pearson(successes: ArrayLike, n: ArrayLike) -> Ends:
    """Return the exact interval of a share (Clopper & Pearson 1934); counts need not be whole."""
    successes, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    tiny = np.finfo(float).tiny
    low = betaincinv(np.maximum(successes, tiny), np.maximum(n - successes, 0) + 1, TAIL)
    high = betaincinv(successes + 1, np.maximum(n - successes, tiny), 1 - TAIL)
    return np.where(successes <= 0, 0.0, low), np.where(successes >= n, 1.0, high)


def effective_rows(columns: NDArray, clusters: Clusters, graded: bool = False) -> NDArray:
    """Return the effective number of rows ``[C]`` of the mean of each column in [0, 1] (Korn & Graubard 1998).

    ``p (1 - p) / v`` with v the variance of a ratio of cluster sums, times the squared ratio of Student's quantiles of
    the rows and of the clusters, at most the rows. If fewer than ten clusters hold the rarer outcome, the variance
    itself is estimated from a few clusters, so at most ``(sum m)^2 / sum m^2``: all rows of a cluster count as one.
    ``graded`` values, other than 0 and 1, may be worth more rows than there are.
    """
    n = float(len(columns))
    p = columns.mean(0)
    sums = clusters.sums(columns)
    error, free = error_of_mean(columns, clusters)
    variance = error**2
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = np.where(variance > 0, p * (1 - p) / variance, n)
    rows = rows * (student.ppf(1 - TAIL, n - 1) / student.ppf(1 - TAIL, free)) ** 2
    few = np.minimum((sums > 0).sum(0), (sums < clusters.sizes[:, None]).sum(0)) < FEW
    return np.minimum(rows, np.where(few, clusters.like_independent(), math.inf if graded else n))


def korn_graubard(columns: NDArray, clusters: Clusters, graded: bool = False) -> Ends:
    """Return the interval of the mean of columns ``[n, C]`` in [0, 1] whose rows come in two clusters or more."""
    rows = effective_rows(columns, clusters, graded)
    return clopper_pearson(columns.mean(0) * rows, rows)


def error_of_mean(columns: NDArray, clusters: Clusters) -> tuple[NDArray, float]:
    """Return the standard error ``[C]`` of a mean of rows in clusters (CR2) and Satterthwaite's degrees of freedom.

    Bell & McCaffrey 2002. The degrees of freedom are the fewer of those for rows that are independent within their
    cluster and for rows that are all alike there.
    """
    n, sizes = float(len(columns)), clusters.sizes
    part = sizes / n
    residuals = clusters.sums(columns) - sizes[:, None] * columns.mean(0)
    error = np.sqrt((np.square(residuals) / (1 - part)[:, None]).sum(0)) / n
    free = len(sizes) - 1.0
    for variances in (sizes, sizes**2) if np.ptp(sizes) > 0 else ():  # equal sizes leave T - 1
        free = min(free, _satterthwaite(part, variances))
    return error, free


def _satterthwaite(part: NDArray, variances: NDArray) -> float:
    """Return degrees of freedom: squared trace over squared norm of ``D (V - p v' - v p' + sum(v) p p') D``.

    ``p [T]`` are the clusters' parts of the rows, ``v [T]`` the variances of their sums, ``V`` their diagonal matrix, D
    that of ``1 / sqrt(1 - p)``: the covariance of the adjusted residuals. Sums over T take the place of the matrix of
    T^2 numbers.
    """
    weight, total = 1 / (1 - part), variances.sum()
    shared = total * part**2 - 2 * part * variances  # of the diagonal
    a, b, c = ((weight * values).sum() for values in (part**2, variances**2, part * variances))
    norm = 2 * a * b + 2 * c**2 + total**2 * a**2 - 4 * total * a * c
    norm += (np.square(weight) * variances * (variances + 2 * shared)).sum()
    return float((weight * (variances + shared)).sum() ** 2 / norm)


def cluster_t(columns: NDArray, clusters: Clusters) -> Ends:
    """Return Student's interval of a mean of rows in clusters, from :func:`error_of_mean`.

    The end on the side of a skew is moved outwards by its effect on Student's
    t (Johnson 1978, Hall 1992). Where all clusters happen to have the same mean, their rows say how far it may be off.
    """
    mean, sizes = columns.mean(0), clusters.sizes
    residuals = clusters.sums(columns) - sizes[:, None] * mean
    error, free = error_of_mean(columns, clusters)
    error = np.where(error > 1e-12 * np.abs(columns).max(0), error, columns.std(0) / math.sqrt(len(columns)))
    quantile = student.ppf(1 - TAIL, free)
    spread = np.sqrt(np.square(residuals).mean(0))
    third = np.divide((residuals**3).mean(0), spread**3, out=np.zeros_like(spread), where=spread > 0)
    lean = error * third * (1 + 2 * quantile**2) / (6 * math.sqrt(len(sizes)))
    reach = quantile * error
    return mean - reach + np.minimum(lean, 0), mean + reach + np.maximum(lean, 0)


def bounded_mean(columns: NDArray, clusters: Clusters, low: float, high: float, steady: bool = False) -> Ends:
    """Return an interval of the mean of columns in ``[low, high]``, valid even if few clusters decide it.

    The union of Student's interval with two others, each of parts put together by their distances (Zou & Donner
    2008): of the parts above and below 0, where fewer than ten clusters hold values away from 0 or from a bound; and
    of what lies near the median and far from it, by more than a tenth of the range, where fewer than ten hold values
    far from it. Elsewhere the variance says what the rarer side may do. ``steady`` leaves the last out.
    """
    lower, upper = cluster_t(columns, clusters)
    if not (math.isfinite(low) and math.isfinite(high)):
        return np.maximum(lower, low), np.minimum(upper, high)
    pivot = np.full(columns.shape[1], min(max(0.0, low), high))
    away = [_clusters_that_hold(columns != point, clusters) for point in (pivot, low, high)]
    parts = [(np.min(away, axis=0) < FEW, _near_and_far(columns, clusters, low, high, pivot, 0.0))]
    if not steady:
        middle, step = np.median(columns, 0), JUMP * (high - low)
        far = _clusters_that_hold(np.abs(columns - middle) > step, clusters)
        parts.append((far < FEW, _near_and_far(columns, clusters, low, high, middle, step)))
    for few, ends in parts:
        lower, upper = (
            np.where(few, np.minimum(lower, ends[0]), lower),
            np.where(few, np.maximum(upper, ends[1]), upper),
        )
    return np.maximum(lower, low), np.minimum(upper, high)


JUMP = 0.1
"""A row is far from the median beyond this share of the column's range."""


def _clusters_that_hold(rows: NDArray, clusters: Clusters) -> NDArray:
    return (clusters.sums(rows.astype(float)) > 0).sum(0)


def _near_and_far(columns: NDArray, clusters: Clusters, low: float, high: float, middle: NDArray, step: float) -> Ends:
    """Return ends of the sum of three parts: within ``step`` of ``middle [C]``, above it, and below it."""
    near = np.clip(columns, middle - step, middle + step)
    lower, upper = cluster_t(near, clusters) if step else (middle, middle)
    above, above_ends = _part(columns - middle - step, high - middle - step, clusters)
    below, below_ends = _part(middle - step - columns, middle - step - low, clusters)
    mean, total = near.mean(0), columns.mean(0)
    lower_end = total - np.sqrt((mean - lower) ** 2 + (above - above_ends[0]) ** 2 + (below_ends[1] - below) ** 2)
    return lower_end, total + np.sqrt((upper - mean) ** 2 + (above_ends[1] - above) ** 2 + (below - below_ends[0]) ** 2)


def _part(rows: NDArray, reach: NDArray, clusters: Clusters) -> tuple[NDArray, Ends]:
    """Return the mean and ends of ``max(rows, 0)`` in ``[0, reach]``, with ``reach [C]``; 0 if reach is not above 0."""
    reach = np.maximum(reach, 0)
    share = np.divide(np.maximum(rows, 0), reach, out=np.zeros_like(rows), where=reach > 0)
    low, high = korn_graubard(np.minimum(share, 1), clusters, graded=True)
    return share.mean(0) * reach, (low * reach, high * reach)


def tango(gains: ArrayLike, harms: ArrayLike, n: int) -> Ends:
    """Return the score interval of ``(gains - harms) / n``, a paired difference of shares (Tango 1998, Stat. Med. 17).

    All differences d that the score test does not reject, with the share of harms at its likeliest given d.
    """
    gains, harms = np.broadcast_arrays(np.asarray(gains, float), np.asarray(harms, float))
    z = normal.ppf(1 - TAIL)

    def score(d: NDArray) -> NDArray:
        a, b, c = 2 * n, -gains - harms + (2 * n - gains + harms) * d, -harms * d * (1 - d)
        q = (np.sqrt(np.maximum(b * b - 4 * a * c, 0)) - b) / (2 * a)
        variance = n * (2 * q + d * (1 - d))
        return (gains - harms - n * d) / np.sqrt(np.maximum(variance, 1e-300))

    ends, middle = [], (gains - harms) / n
    for edge, sign in ((-1.0, 1.0), (1.0, -1.0)):
        outside, inside = np.full_like(middle, edge), middle.copy()
        for _ in range(50):
            half = (outside + inside) / 2
            rejected = sign * score(half) > z
            outside, inside = np.where(rejected, half, outside), np.where(rejected, inside, half)
        ends.append(np.where(middle == edge, edge, outside))
    return ends[0], ends[1]


def order_statistics(columns: NDArray, q: float) -> Ends:
    """Return the exact interval of a quantile for independent rows; an end beyond all rows is infinite."""
    n, tail = len(columns), TAIL
    first = int(binom.ppf(tail, n, q))
    last = int(binom.ppf(1 - tail, n, q)) + 1
    return _ranked(columns, np.full(columns.shape[1], first), np.full(columns.shape[1], last))


def clustered_quantile(columns: NDArray, clusters: Clusters, q: float) -> Ends:
    """Return the interval of a quantile for rows in clusters: rows ranked between the ends of its share (Woodruff)."""
    value = np.quantile(columns, q, axis=0, method="inverted_cdf")
    rows = effective_rows((columns <= value).astype(float), clusters)
    low, high = clopper_pearson(q * rows, rows)
    n = len(columns)
    return _ranked(columns, np.floor(low * n).astype(int), np.ceil(high * n).astype(int) + 1)


def _ranked(columns: NDArray, first: NDArray, last: NDArray) -> Ends:
    """Return the rows of ranks ``first`` and ``last`` (from 1), infinite below 1 and above n."""
    n, column = len(columns), np.arange(columns.shape[1])
    ordered = np.sort(columns, 0)
    low = np.where(first >= 1, ordered[np.clip(first - 1, 0, n - 1), column], -np.inf)
    return low, np.where(last <= n, ordered[np.clip(last - 1, 0, n - 1), column], np.inf)


def over_units(units: NDArray) -> Ends:
    """Return the ends of the mean of unbounded ``units [N, C]``; NaN for fewer than ``UNITS``."""
    n = len(units)
    if n < UNITS:
        return np.full(units.shape[1], np.nan), np.full(units.shape[1], np.nan)
    return cluster_t(units, singletons(n))


def mean_over_units(values: ArrayLike) -> Estimate:
    """Return the mean over independent units (networks, draws, seeds) with an interval, or with their range if few.

    Networks that mostly reach .94 and sometimes fail, or shares near 1, are so skewed that Student's interval of few
    of them held in as little as .56 of simulated sets.

    Args:
        values: ``[N]``, or ``[N, ...]`` with several values for each unit, which are averaged. Units whose value is not
            finite are skipped.
    """
    array = np.asarray(values, dtype=float)
    units = array.reshape(len(array), -1).mean(1) if array.size else array.reshape(0)
    units = units[np.isfinite(units)]
    n = len(units)
    value = float(units.mean()) if n else math.nan
    if n < 2:
        return Estimate.described(value, n, None, f"none: {n} independent {'unit' if n == 1 else 'units'}")
    if np.ptp(units) == 0:  # an interval without width would promise that no other unit ever differs
        return Estimate.described(value, n, None, f"none: the same in all {n} independent units")
    if n < UNITS:
        return Estimate(value, float(units.min()), float(units.max()), n, None, UNIT_RANGE)
    (low,), (high,) = over_units(units[:, None])
    return Estimate(value, float(low), float(high), n, None, "t over independent units, skew-adjusted")
