"""The shape of a dose-response: is it monotone, and do both signs of a strength have the same effect?

Each claim is of means of paired differences, tested one-sided: the sign test of discordant pairs for shares of
independent rows (McNemar's exact test), betting on the range else (see ``bounds``). A claim about all pairs of
strengths is corrected for their number by Bonferroni's rule.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc

from lightning_steer.statistics.bounds import Betting
from lightning_steer.statistics.columns import as_clusters

LEVEL = 0.05
"""Largest chance of a false claim."""
BETTING = Betting()
MOST_AT_A_TIME = 2**23
"""Number of differences that are held in memory at a time."""


class Step(NamedTuple):
    """A change of the mean between two of the strengths, in the order of strengths."""

    start: int
    end: int
    p: float
    """Corrected for the number of pairs that were tested."""


class Shape(NamedTuple):
    """The statements about a dose-response that are certain."""

    rise: Step | None
    """The surest rise from a strength to a larger one; None if none is certain."""
    fall: Step | None
    """The surest fall."""
    pairs: int
    """Number of pairs of strengths that were tested."""
    how: str

    @property
    def monotone(self) -> bool | None:
        """False: it certainly rises and falls. True: only one of both is certain. None: neither is."""
        return None if self.rise is None and self.fall is None else self.rise is None or self.fall is None


def shape(values: NDArray, share: bool, low: float, high: float, cluster: ArrayLike | None = None) -> Shape:
    """Return the shape of ``values [S, n]``, ordered by strength.

    If the true means never fall (or never rise) from a strength to a larger one, the chance of ``monotone`` False is
    at most :data:`LEVEL`; so is that of a fall (rise) that is called certain.
    """
    pairs = list(combinations(range(len(values)), 2))
    p = np.ones((2, len(pairs)))
    for chunk in np.array_split(np.arange(len(pairs)), -(-len(pairs) * values.shape[1] // MOST_AT_A_TIME)):
        differences = np.stack([values[pairs[k][1]] - values[pairs[k][0]] for k in chunk])
        for direction, sign in enumerate((1, -1)):
            p[direction, chunk] = p_values(sign * differences, share, low, high, cluster, len(pairs))
    rise, fall = (_surest(pairs, p_of_direction * len(pairs)) for p_of_direction in p)
    return Shape(rise, fall, len(pairs), how(share, cluster))


def both_signs(
    values: NDArray, strengths: list[float], share: bool, low: float, high: float, cluster: ArrayLike | None = None
) -> list[tuple[float, int, float]]:
    """Return each strength s > 0 at which -s and s certainly move the mean the same way, with the way and the p-value.

    Args:
        values: ``[S, n]`` by ``strengths``, which hold 0.
        strengths: ``S`` numbers.
        share: values are 0 and 1.
        low: smallest possible value.
        high: largest possible value.
        cluster: ``[n]`` the cluster of each row; None: rows are independent.
    """
    index = {strength: i for i, strength in enumerate(strengths)}
    pairs = [s for s in strengths if s > 0 and -s in index]
    certain = []
    for sign in (1, -1):
        for s in pairs:
            changes = sign * np.stack([values[index[side]] - values[index[0.0]] for side in (s, -s)])
            p = float(p_values(changes, share, low, high, cluster, len(pairs)).max()) * len(pairs)
            if p < LEVEL:
                certain.append((s, sign, p))
    return certain


def p_values(
    differences: NDArray, share: bool, low: float, high: float, cluster: ArrayLike | None, claims: int = 1
) -> NDArray:
    """Return ``[U]`` p-values of "the true mean of ``differences [U, n]`` is at most 0", one of ``claims`` claims."""
    clusters = as_clusters(cluster, differences.shape[1])
    if share and clusters is None:
        gains, harms = (differences > 0).sum(1), (differences < 0).sum(1)
        return np.where(gains > 0, betainc(np.maximum(gains, 1), harms + 1, 0.5), 1.0)
    if not np.isfinite(high - low):
        return np.ones(len(differences))
    scaled = differences / (high - low)
    if clusters is not None:
        scaled = (clusters.sums(scaled.T) / clusters.sizes[:, None]).T
    return BETTING.p_value(np.clip(scaled, -1, 1), 0.0, LEVEL / claims)


def how(share: bool, cluster: ArrayLike | None) -> str:
    """Return the name of the test."""
    if share and cluster is None:
        return "exact sign test of the pairs that differ (McNemar)"
    return "betting on the range" + ("" if cluster is None else " of the clusters' means, each cluster counting once")


def _surest(pairs: list[tuple[int, int]], p: NDArray) -> Step | None:
    best = int(np.argmin(p))
    return Step(*pairs[best], float(p[best])) if p[best] < LEVEL else None
