"""Power of paired changes: the chance of an effect to be found, and the rows that it needs.

An effect is found if its 95 % interval excludes 0. Power depends on the design and the assumed effect, never on the
observed effect, which would only restate the p-value (Hoenig & Heisey 2001, Am. Stat. 55:19).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binom
from scipy.stats import norm as normal
from scipy.stats import t as student

from lightning_steer.statistics.estimate import LEVEL, Estimate

USUAL_POWER = 0.8
"""Share of repeats in which an effect should be found."""
RUN = 10
"""So many successive numbers of rows must suffice: the power of a test on counts is not monotone."""
TINY = 1e-9


@dataclass(frozen=True)
class PairedDesign:
    """A change of a share over n independent rows, each of which is better, worse or the same, by Tango's interval.

    The interval excludes 0 where ``|gains - harms| > z sqrt(gains + harms)`` (McNemar 1947). The number of discordant
    rows is binomial, the gains among them are as well; power is the double sum (Connor 1987, Biometrics 43:207).

    Args:
        n: number of rows.
        discordant: share of rows whose outcome changes either way; more if the effect needs it.
    """

    n: int
    discordant: float

    def power(self, effect: float) -> float:
        """Return the chance of finding a true ``effect``."""
        discordant = max(self.discordant, abs(effect))
        gain, harm = (discordant + effect) / 2, (discordant - effect) / 2
        changed = np.arange(1, self.n + 1)
        fewest = np.floor((changed + normal.ppf((1 + LEVEL) / 2) * np.sqrt(changed)) / 2) + 1
        chance = gain / max(gain + harm, TINY)
        chance_found = binom.sf(fewest - 1, changed, chance) + binom.sf(fewest - 1, changed, 1 - chance)
        return float(binom.pmf(changed, self.n, min(gain + harm, 1.0)) @ chance_found)

    def units_needed(self, effect: float, chance: float = USUAL_POWER, largest: int = 100_000) -> int | None:
        """Return the fewest rows that find ``effect`` with this chance, as do the next ten numbers.

        None if ``largest`` rows do not.
        """
        low, high = 1, 2
        while replace(self, n=high).power(effect) < chance:
            low, high = high, 2 * high
            if low >= largest:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if replace(self, n=middle).power(effect) >= chance else (middle, high)
        successes = 0
        while successes < RUN:
            successes = successes + 1 if replace(self, n=high).power(effect) >= chance else 0
            high += 1
        return high - RUN if high - RUN <= largest else None


def could_have_seen(estimate: Estimate, chance: float = USUAL_POWER) -> float:
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
