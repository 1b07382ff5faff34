"""The power of certificates by true effect: :mod:`lightning_steer.statistics.power` for certificates."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from lightning_steer.statistics.bounds import Betting, Bound, ExactPaired, check
from lightning_steer.statistics.power import TINY, Design, fixed_and_broken

EXACT = ExactPaired()


@dataclass(frozen=True)
class CertificateDesign(Design):
    """A certificate over n independent rows that are better, worse or the same, for one candidate of K.

    For each number of harms there is a smallest number of gains that is certified at risk delta / K (Bonferroni); power
    is the chance of these counts. The chance that any of several useful candidates is certified is larger.

    Args:
        n: calibration rows.
        discordant: share of rows whose outcome changes either way.
        candidates: number K of candidates that share the risk.
        delta: accepted risk of a false certificate.
        epsilon: the change that must be exceeded.
        bound: lower confidence bound; Betting for more than 2,500 rows.
    """

    n: int
    discordant: float
    candidates: int = 10
    delta: float = 0.01
    epsilon: float = 0.0
    bound: Bound = field(default_factory=lambda: EXACT)

    def __post_init__(self) -> None:
        check(self.delta, self.epsilon, self.n, self.candidates)

    @property
    def most(self) -> float:
        """The largest possible effect."""
        return 1.0

    @property
    def units(self) -> int:
        """Number of units that are drawn."""
        return self.n

    def fewest_gains(self, harms: NDArray) -> NDArray:
        """Return the fewest gains ``[H]`` that are certified with ``harms [H]``; n + 1 if no number is."""
        return _fewest_gains(self.n, self.delta / self.candidates, self.epsilon, self.bound)[harms]

    def power(self, effect: float) -> float:
        """Return the chance that the effect is shown."""
        gain, harm = fixed_and_broken(effect, self.discordant)
        harms = np.arange(int(binom.ppf(1 - TINY, self.n, harm)) + 1)
        chance = binom.sf(self.fewest_gains(harms) - 1, self.n - harms, min(gain / max(1 - harm, TINY), 1.0))
        return float(binom.pmf(harms, self.n, harm) @ chance)

    def of(self, units: int) -> Self:
        """Return the same design with another number of units."""
        return replace(self, n=units)


@lru_cache(maxsize=32)
def _fewest_gains(n: int, risk: float, epsilon: float, bound: Bound) -> NDArray:
    gains, harms = np.indices((n + 1, n + 1))
    possible = gains + harms <= n
    certified = np.zeros_like(possible)
    certified[possible] = bound.exceeds(gains[possible], harms[possible], n, risk, epsilon)
    return np.where(certified.any(0), certified.argmax(0), n + 1)


def betting_power(
    units: ArrayLike, n: int, candidates: int = 10, delta: float = 0.01, sets: int = 1000, seed: int = 0
) -> float:
    """Return how often betting certifies n rows or clusters like ``units [U]``, changes in [-1, 1], by redrawing them.

    For graded changes and for means of clusters, whose law no count describes: use a pilot, or assume one.
    """
    values, random = np.asarray(units, dtype=float), np.random.default_rng(seed)
    drawn = values[random.integers(len(values), size=(sets, n))]
    return float(Betting().refutes(drawn, 0.0, delta / candidates).mean())
