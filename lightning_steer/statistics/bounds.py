"""Lower confidence bounds of a mean change: in {-1, 0, 1}, from the counts of gains and harms, or in a range.

The order of rows does not matter. One file, so that bounds of one quantity are easy to compare.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv, gammaln, xlogy

from lightning_steer.errors import UserError


class Bound(ABC):
    """A lower confidence bound of a mean change: above the true mean with probability at most delta."""

    @abstractmethod
    def at(self, gains: NDArray, harms: NDArray, n: int, delta: float) -> NDArray:
        """Return bounds ``[U]`` from the counts ``gains [U]`` and ``harms [U]`` among n rows."""

    def exceeds(self, gains: NDArray, harms: NDArray, n: int, delta: float, epsilon: float) -> NDArray:
        """Return whether the bound is above epsilon, ``[U]``."""
        return self.at(gains, harms, n, delta) > epsilon

    def lower(self, changes: NDArray, delta: float) -> NDArray:
        """Return bounds ``[...]`` from ``changes [..., N]`` in {-1, 0, 1}; raise ValueError on other values."""
        changes = np.asarray(changes)
        n = changes.shape[-1] if changes.ndim else 0
        check(delta, n=n)
        gains, harms, ties = ((changes == value).sum(-1) for value in (1, -1, 0))
        if (gains + harms + ties != n).any():
            raise UserError(f"changes are -1, 0 or 1, not {np.setdiff1d(changes, (-1, 0, 1))[:3].tolist()}")
        distinct, index = np.unique(np.ravel(gains * (n + 1) + harms), return_inverse=True)  # resamples repeat counts
        return np.maximum(self.at(*np.divmod(distinct, n + 1), n, delta), -1.0)[index].reshape(gains.shape)


@dataclass(frozen=True)
class Hoeffding(Bound):
    """``mean - sqrt(2 log(1/delta) / N)``: uses only the range 2 (Hoeffding 1963, theorem 2)."""

    def at(self, gains: NDArray, harms: NDArray, n: int, delta: float) -> NDArray:
        return (gains - harms) / n - np.sqrt(2 * np.log(1 / delta) / n)


@dataclass(frozen=True)
class EmpiricalBernstein(Bound):
    """``mean - sqrt(2 V l / N) - 14 l / (3 (N - 1))``, ``l = log(2/delta)``, V the sample variance (divisor N - 1).

    Maurer & Pontil 2009, arXiv 0907.3740, theorem 4, stretched to range 2; half of delta pays for V.
    """

    def at(self, gains: NDArray, harms: NDArray, n: int, delta: float) -> NDArray:
        mean, log, free = (gains - harms) / n, np.log(2 / delta), max(n - 1, 1)
        variance = ((gains + harms) / n - mean**2) * n / free
        return mean - np.sqrt(2 * variance * log / n) - 14 * log / (3 * free)


@dataclass(frozen=True)
class Betting(Bound):
    """The smallest mean m against which no bettor has multiplied a capital of 1 by 1/delta.

    A bet c in (0, 1] multiplies the capital by ``1 + c (x - m) / (1 + m) >= 0``, by 1 on average if m is the mean. So
    the product over rows, averaged over bets, has expectation 1 and reaches 1/delta with probability at most delta
    (Markov); it falls in m, and bisection finds the bound. Waudby-Smith & Ramdas 2024, arXiv 2010.09686, with a grid of
    bets; as these are constant, unlike bets learned on the way, the product is the same in every order of the rows.

    Args:
        bets: number of bets, spaced geometrically from ``sqrt(2 log(1/delta) / N)``, the best at full churn, to 1.
    """

    bets: int = 8

    def __post_init__(self) -> None:
        if self.bets < 1:
            raise UserError(f"betting takes at least one bet, not {self.bets}")

    def grid(self, n: int, delta: float) -> NDArray:
        """Return the bets ``[bets]`` for n rows."""
        return np.geomspace(np.clip(np.sqrt(2 * np.log(1 / delta) / n), 1e-3, 1), 1, self.bets)

    def at(self, gains: NDArray, harms: NDArray, n: int, delta: float) -> NDArray:
        bets = self.grid(n, delta)
        low, high = np.full((len(gains), 1), -1.0), np.ones((len(gains), 1))
        gains, harms = gains[:, None], harms[:, None]
        for _ in range(40):
            m = (low + high) / 2
            tied, gained = np.log1p(-bets * m / (1 + m)), np.log1p(bets * (1 - m) / (1 + m))
            capital = gains * gained + xlogy(harms, 1 - bets) + (n - gains - harms) * tied
            refuted = np.logaddexp.reduce(capital, 1, keepdims=True) >= np.log(self.bets / delta)
            low, high = np.where(refuted, m, low), np.where(refuted, high, m)
        return low[:, 0]

    def refutes(self, values: NDArray, mean: NDArray | float, delta: float) -> NDArray:
        """Return whether the true mean of ``values [U, n]`` in [-1, 1] is surely above ``mean [U]``, ``[U]``."""
        m, capital = np.broadcast_to(mean, len(values)), []
        for bet in self.grid(values.shape[-1], delta):
            with np.errstate(divide="ignore"):
                factors = np.maximum(1 + bet * (values - m[:, None]) / (1 + m[:, None]), 0)
                capital.append(np.log(factors).sum(-1))
        return np.logaddexp.reduce(capital, 0) >= np.log(self.bets / delta)

    def lower_in_range(self, values: NDArray, delta: float) -> NDArray:
        """Return bounds ``[U]`` of the means of ``values [U, n]`` in [-1, 1], graded or not."""
        low, high = np.full(len(values), -1.0), np.ones(len(values))
        for _ in range(40):
            middle = (low + high) / 2
            refuted = self.refutes(values, middle, delta)
            low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
        return low

    def p_value(self, values: NDArray, mean: float, delta: float) -> NDArray:
        """Return p-values ``[U]`` of "the true mean of ``values [U, n]`` in [-1, 1] is at most ``mean``" (Markov).

        The bets are those for ``delta``: a p-value is at most delta exactly where :meth:`refutes` is true.
        """
        capital = []
        for bet in self.grid(values.shape[-1], delta):
            with np.errstate(divide="ignore"):
                capital.append(np.log(np.maximum(1 + bet * (values - mean) / (1 + mean), 0)).sum(-1))
        return np.exp(np.minimum(np.log(self.bets) - np.logaddexp.reduce(capital, 0), 0))

    def enough(self, values: NDArray, mean: float, delta: float) -> int | None:
        """Return how many rows like ``values [n]`` in [-1, 1] would refute ``mean``; None if no number would."""
        bets = np.geomspace(1e-3, 0.999, 200)[:, None]
        growth = float(np.log1p(bets * (values - mean) / (1 + mean)).mean(1).max())
        return int(np.ceil(np.log(self.bets / delta) / growth)) if growth > 1e-9 else None


@dataclass(frozen=True)
class ExactPaired(Bound):
    """Exact for counts: at 0 the sign test of discordant pairs (McNemar's, one-sided), elsewhere its extension.

    Any law of a row's change with mean t >= 0 is a mixture: with some chance q the row is *contested*, a gain or a
    harm with chances (1 + t)/2 and (1 - t)/2; otherwise a gain or a tie with chances t and 1 - t. (For t < 0 with gain
    and harm exchanged.) Given the number j of contested rows, the chance ``C_j(t)`` of a set of counts holds no
    unknown; under any q its chance is an average of the ``C_j``, at most their maximum. Rank all counts: a gain in
    place of a tie never ranks lower, a harm never higher. The bound is the supremum of the t with
    ``max_j C_j(t, {counts of this rank or higher}) < delta`` (after Buehler 1957). It is valid: every row, and with it
    ``C_j``, grows stochastically with t, so {bound > t} is a set of top ranks whose chance is below delta if t is the
    mean. At t = 0, ``C_j`` is the chance given j discordant pairs. The ranks matter for power alone: first by whether
    the sign test rejects, then by an approximate bound, ``mean - sqrt(a^2 + b^2 + 2 c a b)`` with a and b the distances
    to the Clopper-Pearson bounds of the shares of gains and harms, c minus their correlation (after Newcombe 1998).

    Args:
        resolution: bounds are rounded down by less than this. Ten candidates took .14 to .22 s
            of processor time at N = 250, 2.0 to 2.5 s at 1,000, with nothing kept from an earlier call.
    """

    resolution: float = 0.0005

    def __post_init__(self) -> None:
        if not 0 < self.resolution < 1:
            raise UserError(f"resolution lies between 0 and 1, not {self.resolution}")

    def at(self, gains: NDArray, harms: NDArray, n: int, delta: float) -> NDArray:
        if n > 2500:
            raise UserError(f"ExactPaired needs tables of N^2 numbers, too large for {n} rows: take Betting")
        rank = _rank(n, delta)
        levels, index = np.unique(rank[gains, harms], return_inverse=True)
        lower = np.empty(len(levels))
        intervals = [(0, len(levels), -1.0, 1.0)]  # the bounds of levels first:last lie between low and high
        while intervals:
            first, last, low, high = intervals.pop()
            # every mean but the start is refuted strictly, so a slightly larger one is too
            lower[first:last] = np.nextafter(low, 1) if low > -1 else low
            if first < last and high - low > self.resolution:
                middle = (low + high) / 2
                tables = _tables(n, abs(middle))
                split = first + bisect_left(
                    levels[first:last], True, key=lambda t: _worst(rank >= t, middle < 0, *tables) < delta
                )
                intervals += [(first, split, low, middle), (split, last, middle, high)]
        return lower[index]

    def refutes(self, gains: NDArray, harms: NDArray, n: int, mean: float, delta: float) -> NDArray:
        """Return ``[...]`` whether the true mean of these counts surely exceeds ``mean``: whether p is below delta."""
        return _rank(n, delta)[gains, harms] >= _first_refuted(n, delta, mean)

    def p_value(self, gains: NDArray, harms: NDArray, n: int, mean: float, delta: float) -> NDArray:
        """Return p-values ``[U]`` of "the true mean is at most ``mean``": the chance of counts of this rank or higher.

        Counts are ranked as for ``delta``; the p-value is valid at any level, and the most powerful near delta.
        """
        rank, tables = _rank(n, delta), _tables(n, abs(mean))
        levels, index = np.unique(rank[gains, harms], return_inverse=True)
        return np.array([_worst(rank >= level, mean < 0, *tables) for level in levels])[index]

    def exceeds(self, gains: NDArray, harms: NDArray, n: int, delta: float, epsilon: float) -> NDArray:
        """Return whether the bound is above epsilon, ``[U]``: whether the next mean that ``at`` tries is refuted."""
        step = 2.0 ** (1 - math.ceil(math.log2(2 / self.resolution)))
        return self.refutes(gains, harms, n, math.ceil(epsilon / step) * step, delta)


@lru_cache(maxsize=4)
def _rank(n: int, delta: float) -> NDArray:
    """Return ranks ``[gains, harms]`` that increase with the evidence; infinite above n discordant pairs."""
    gains, harms = np.indices((n + 1, n + 1))
    gains_low = np.where(gains > 0, betaincinv(np.maximum(gains, 1), np.maximum(n - gains, 0) + 1, delta), 0.0)
    harms_high = np.where(harms < n, betaincinv(harms + 1, np.maximum(n - harms, 1), 1 - delta), 1.0)
    a, b = gains / n - gains_low, harms_high - harms / n
    c = np.sqrt(gains * harms / np.maximum((n - gains) * (n - harms), 1))
    rank = (gains - harms) / n - np.sqrt(a**2 + b**2 + 2 * c * a * b)
    rejected = (gains > 0) & (betainc(np.maximum(gains, 1), harms + 1, 0.5) < delta)  # by the sign test
    rank = np.where(rejected, np.maximum(rank, np.finfo(float).tiny), np.minimum(rank, 0))
    rank = np.where(gains + harms <= n, rank, np.inf)
    return np.minimum.accumulate(np.maximum.accumulate(rank, 0), 1)


@lru_cache(maxsize=64)
def _first_refuted(n: int, delta: float, mean: float) -> float:
    """Return the lowest rank of counts that refute a true mean of at most ``mean``; infinite if none does."""
    rank, tables = _rank(n, delta), _tables(n, abs(mean))
    levels = np.unique(rank)
    first = bisect_left(levels, True, key=lambda level: _worst(rank >= level, mean < 0, *tables) < delta)
    return float(levels[first]) if first < len(levels) else np.inf


@lru_cache(maxsize=4)
def _log_choose(n: int) -> NDArray:
    m, k = np.indices((n + 1, n + 1))
    return np.where(k <= m, gammaln(m + 1) - gammaln(k + 1) - gammaln(np.maximum(m - k, 0) + 1), -np.inf)


def _tables(n: int, t: float) -> tuple[NDArray, NDArray]:
    """Return chances ``[j, k]`` of k harms among j contested rows, and of at least k gains among the n - j others."""
    m, k = np.indices((n + 1, n + 1), sparse=True)
    contested, others = (np.exp(_log_choose(n) + xlogy(k, p) + (m - k) * np.log1p(-p)) for p in ((1 - t) / 2, t))
    return contested, np.pad(np.cumsum(others[::-1, ::-1], 1)[:, ::-1], ((0, 0), (0, 1)))


def _worst(counts: NDArray, negative: bool, contested: NDArray, others: NDArray) -> float:
    """Return ``max_j C_j`` of the set ``counts [gains, harms]``, which contains the impossible counts too."""
    n = len(counts) - 1
    j, harms = np.indices((n + 1, n + 1), sparse=True)
    # a negative mean is a positive one of the complement with gains and harms exchanged
    fewest = (counts & (j + harms <= n)).sum(1) if negative else (~counts).sum(0)
    chance = (contested * np.take_along_axis(others, np.clip(fewest + harms - j, 0, n + 1), 1)).sum(1)
    return float(1 - chance.min() if negative else chance.max())


def check(delta: float, epsilon: float = 0.0, n: int = 1, k: int = 1) -> None:
    """Raise ValueError on impossible settings."""
    if not 0 < delta < 1:
        raise UserError(f"delta is a risk between 0 and 1, not {delta}")
    if not -1 <= epsilon < 1:
        raise UserError(f"epsilon is an improvement, at least -1 and below 1, not {epsilon}")
    if k < 1:
        raise UserError(f"there must be a candidate to choose, not {k}")
    if n < 1:
        raise UserError(f"the calibration split must have rows, not {n}")
