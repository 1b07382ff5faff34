"""Tests of declared claims over independent units (terms, seeds, networks), each with its detectable effect."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from lightning_steer.errors import UserError
from lightning_steer.statistics.estimate import LEVEL, Estimate
from lightning_steer.statistics.intervals import mean_over_units
from lightning_steer.statistics.power import USUAL_POWER

ENOUGH = 20
"""From this many units on, sets are redrawn from them; with fewer, normal ones of their spread are drawn."""

ASSUMED = (
    "p: Student's t over {unit}. This test assumes that they are independent and normally distributed. If they are few "
    "and skewed, the true chance of a false claim may be larger than p."
)
"""Note wherever p-values are printed."""


class Result(NamedTuple):
    """The result of one declared contrast."""

    estimate: Estimate
    p: float
    """P-value of the claim's opposite; for equivalence the larger of two."""
    detectable: float
    """Smallest true distance from the limit that this design finds in 80 % of repeats, at the level that the strictest
    of the question's claims must meet; of equivalence, the narrowest limit that it shows if the truth is 0."""


def above(units: ArrayLike, limit: float = 0.0, claims: int = 1, sets: int = 4000) -> Result:
    """Return the claim that the mean over ``units [T]`` is above a limit: Student's test, one-sided.

    Args:
        units: the value of each independent unit.
        limit: the value that must be exceeded.
        claims: number of the question's claims, which share the level.
        sets: simulated sets behind ``detectable``.
    """
    values = _checked(units)
    estimate, n = mean_over_units(values), len(values)
    if np.ptp(values) == 0:
        return Result(estimate, 1.0, math.inf)
    p = _p(values, limit)
    return Result(
        estimate, p, float(np.quantile(_misses(values, (1 - LEVEL) / claims, sets), USUAL_POWER)) if n > 1 else 1
    )


def below(units: ArrayLike, limit: float = 0.0, claims: int = 1, sets: int = 4000) -> Result:
    """Return the claim that the mean over ``units [T]`` is below a limit."""
    values = _checked(units)
    mirrored = above(-values, -limit, claims, sets)
    return Result(mean_over_units(values), mirrored.p, mirrored.detectable)


def share_within(part: ArrayLike, whole: ArrayLike, limit: float, claims: int = 1) -> Result:
    """Return the claim that mean ``part [T]`` is within -limit and limit of mean ``whole [T]``, which is above 0.

    Two one-sided tests (Schuirmann 1987) of ``part - limit whole`` and ``part + limit whole``. The interval is
    Fieller's at 90 %, which lies within the limits exactly where both tests reject at 5 %.
    """
    numerator, denominator = _checked(part), _checked(whole)
    n, freedom = len(numerator), len(numerator) - 1
    p = max(_p(limit * denominator - numerator, 0.0),
            _p(numerator + limit * denominator, 0.0))  # fmt: skip
    low, high = _fieller(numerator, denominator, float(student.ppf(LEVEL, freedom)) / math.sqrt(n))
    value = float(numerator.mean() / denominator.mean())
    how = "Fieller, 90 %" if math.isfinite(low) else "none: what is to be explained may be 0"
    level = (1 - LEVEL) / claims
    error = numerator.std(ddof=1) / math.sqrt(n) / abs(denominator.mean())
    quantiles = student.ppf(1 - level, freedom) + student.ppf((1 + USUAL_POWER) / 2, freedom)
    return Result(Estimate(value, low, high, n, None, how), p, float(quantiles * error))


def found_again(units: ArrayLike, limit: float = 0.0, claims: int = 1, sets: int = 1000) -> float:
    """Return how often :func:`above` is shown in sets of as many units, redrawn from these.

    This restates the units' own p-value and is no power for others: units that pass by chance are mostly found again.
    """
    values, random = _checked(units), np.random.default_rng(0)
    drawn = values[random.integers(len(values), size=(sets, len(values)))]
    drawn = drawn[np.ptp(drawn, axis=1) > 0]  # a set of equal values shows nothing
    return float(
        (np.asarray(ttest_1samp(drawn, limit, axis=1, alternative="greater")[1]) <= (1 - LEVEL) / claims).sum() / sets
    )


def _p(values: NDArray, limit: float) -> float:
    return float(np.asarray(ttest_1samp(values, limit, alternative="greater")[1]))


def _checked(units: ArrayLike) -> NDArray:
    values = np.asarray(units, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise UserError(f"a claim is over two or more finite units, not over {values.tolist()}")
    return values


def _misses(values: NDArray, level: float, sets: int) -> NDArray:
    """Return the true means ``[sets]`` above which each simulated set of equally spread units detects them."""
    random, n = np.random.default_rng(0), len(values)
    centred = values - values.mean()
    if n >= ENOUGH:
        drawn = centred[random.integers(n, size=(sets, n))]
    else:
        drawn = centred.std(ddof=1) * random.standard_normal((sets, n))
    return student.ppf(1 - level, n - 1) * drawn.std(1, ddof=1) / math.sqrt(n) - drawn.mean(1)


def _fieller(numerator: NDArray, denominator: NDArray, scale: float) -> tuple[float, float]:
    """Return the ends of a ratio of means; NaN if the denominator's mean may be 0."""
    (a, b), (_, c) = np.cov(numerator, denominator) * scale**2
    x, y = numerator.mean(), denominator.mean()
    square, middle, constant = y * y - c, x * y - b, x * x - a
    if square <= 0:
        return math.nan, math.nan
    root = math.sqrt(max(middle * middle - square * constant, 0))
    return float((middle - root) / square), float((middle + root) / square)
