"""Power of a design: its power at an effect, the smallest effect that it finds, and the rows that an effect needs.

For shares, paired changes and means in clusters; certificates are in
:mod:`lightning_steer.statistics.certificate_power`.

A design finds an effect if its 95 % interval excludes the null value (0, or a null share), or
if it gives a certificate. *Smallest* is the effect found in 80 % of repeats by default. Power depends
on the design and the assumed effect, never on the observed effect, which would only restate the p-value (Hoenig
& Heisey 2001, Am. Stat. 55:19).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy.stats import binom, chi2
from scipy.stats import norm as normal
from scipy.stats import t as student

from lightning_steer.statistics import intervals
from lightning_steer.statistics.estimate import LEVEL, Estimate

WANTED = 0.8
"""Share of repeats in which an effect should be found."""
RUN = 10
"""So many successive numbers of rows must suffice: the power of a test on counts is not monotone."""
TINY = 1e-9


class Design(ABC):
    """A number of rows and the test of their effect."""

    @property
    @abstractmethod
    def most(self) -> float:
        """Return the largest effect that there can be."""

    @property
    @abstractmethod
    def units(self) -> int:
        """Return how many rows, or clusters, there are."""

    @abstractmethod
    def power(self, effect: float) -> float:
        """Return the chance of finding a true ``effect``."""

    @abstractmethod
    def of(self, units: int) -> Self:
        """Return the same design with another number of rows, or of clusters like these."""

    def smallest_effect(self, chance: float = WANTED) -> float:
        """Return the smallest positive effect that is found with this chance; infinite if none is."""
        if self.power(self.most) < chance:
            return math.inf
        low, high = 0.0, self.most
        for _ in range(14):
            middle = (low + high) / 2
            low, high = (low, middle) if self.power(middle) >= chance else (middle, high)
        return high

    def units_needed(self, effect: float, chance: float = WANTED, largest: int = 100_000) -> int | None:
        """Return the fewest rows, or clusters, that find ``effect`` with this chance, as do the next ten numbers.

        None if ``largest`` rows do not.
        """
        low, high = 1, 2
        while self.of(high).power(effect) < chance:
            low, high = high, 2 * high
            if low >= largest:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.of(middle).power(effect) >= chance else (middle, high)
        successes = 0
        while successes < RUN:
            successes = successes + 1 if self.of(high).power(effect) >= chance else 0
            high += 1
        return high - RUN if high - RUN <= largest else None


@dataclass(frozen=True)
class ShareDesign(Design):
    """A share of n independent rows compared with a null share, by the exact interval (Clopper & Pearson 1934).

    The effect is the share minus the null; power is the sum of the binomial chances of all counts whose interval
    excludes the null.
    """

    n: int
    null: float = 0.5

    @property
    def most(self) -> float:
        """Return the largest effect that there can be."""
        return 1 - self.null

    @property
    def units(self) -> int:
        """Return how many units are drawn."""
        return self.n

    def power(self, effect: float) -> float:
        """Return the chance that the effect is shown."""
        counts = np.arange(self.n + 1)
        low, high = intervals.clopper_pearson(counts, self.n)
        return float(binom.pmf(counts, self.n, self.null + effect)[(low > self.null) | (high < self.null)].sum())

    def of(self, units: int) -> Self:
        """Return the same design with another number of units."""
        return replace(self, n=units)


def fixed_and_broken(effect: float, discordant: float) -> tuple[float, float]:
    """Return the chances of a gain and of a harm; more rows are discordant if the effect needs it."""
    discordant = max(discordant, abs(effect))
    return (discordant + effect) / 2, (discordant - effect) / 2


@dataclass(frozen=True)
class PairedDesign(Design):
    """A change of a share over n independent rows, each of which is better, worse or the same, by Tango's interval.

    The interval excludes 0 where ``|gains - harms| > z sqrt(gains + harms)`` (McNemar 1947). The number of discordant
    rows is binomial, the gains among them are as well; power is the double sum (Connor 1987, Biometrics 43:207).

    Args:
        n: number of rows.
        discordant: share of rows whose outcome changes either way.
    """

    n: int
    discordant: float

    @property
    def most(self) -> float:
        """Return the largest effect that there can be."""
        return 1.0

    @property
    def units(self) -> int:
        """Return how many units are drawn."""
        return self.n

    def power(self, effect: float) -> float:
        """Return the chance that the effect is shown."""
        gain, harm = fixed_and_broken(effect, self.discordant)
        changed = np.arange(1, self.n + 1)
        fewest = np.floor((changed + normal.ppf((1 + LEVEL) / 2) * np.sqrt(changed)) / 2) + 1
        chance = gain / max(gain + harm, TINY)
        chance_found = binom.sf(fewest - 1, changed, chance) + binom.sf(fewest - 1, changed, 1 - chance)
        return float(binom.pmf(changed, self.n, min(gain + harm, 1.0)) @ chance_found)

    def of(self, units: int) -> Self:
        """Return the same design with another number of units."""
        return replace(self, n=units)


@dataclass(frozen=True)
class ClusteredDesign(Design):
    """A mean of rows in clusters, by Student's t over clusters.

    The variance of the mean is ``sd^2 sum m (1 + (m - 1) icc) / (sum m)^2`` (Kish 1965), and the power that of the
    noncentral t with T - 1 degrees of freedom: a normal chance, averaged over quantiles of the spread (scipy's own
    gives NaN far out). A simplification: sizes that differ much leave fewer degrees.

    Args:
        sizes: rows of each of T clusters.
        icc: correlation of two rows of one cluster.
        sd: standard deviation of a row.
        largest: largest possible mean.
    """

    sizes: tuple[int, ...]
    icc: float
    sd: float = 1.0
    largest: float = math.inf

    @property
    def most(self) -> float:
        """Return the largest effect that there can be."""
        return min(self.largest, 30 * self.error())

    @property
    def units(self) -> int:
        """Return how many units are drawn."""
        return len(self.sizes)

    def error(self) -> float:
        """Return the standard error of the mean."""
        m = np.asarray(self.sizes, dtype=float)
        return self.sd * math.sqrt((m * (1 + (m - 1) * self.icc)).sum()) / m.sum()

    def power(self, effect: float) -> float:
        """Return the chance that the effect is shown."""
        free = self.units - 1
        if free < 1:
            return 0.0
        quantile, shift = student.ppf((1 + LEVEL) / 2, free), effect / max(self.error(), TINY)
        spread = quantile * np.sqrt(chi2.ppf((np.arange(2000) + 0.5) / 2000, free) / free)
        return float((normal.sf(spread - shift) + normal.cdf(-spread - shift)).mean())

    def of(self, units: int) -> Self:
        """Return the same design with another number of units."""
        return replace(self, sizes=tuple(np.resize(self.sizes, units).tolist()))


def could_have_seen(estimate: Estimate, chance: float = WANTED) -> float:
    """Return the smallest change for which an interval of this width excludes 0 with this chance.

    ``h (1 + t_w / t_.975)`` with h the longer arm of the interval and Student's quantiles of its rows or clusters: the
    standard errors between 0 and a mean found so often (Cohen 1988). Infinite without an interval; the value plays no
    part.
    """
    arm = max(estimate.high - estimate.value, estimate.value - estimate.low)
    if not math.isfinite(arm):
        return math.inf
    free = max((estimate.n if estimate.clusters is None else estimate.clusters) - 1, 1)
    return float(arm * (1 + student.ppf(chance, free) / student.ppf((1 + LEVEL) / 2, free)))
