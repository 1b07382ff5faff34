"""Does steering move the behaviour, or the answer's position? Changes by the position of the wanted answer.

A vector for a letter raises the wanted answer where that letter is the wanted one, and lowers it elsewhere; a
vector for the behaviour raises it at every position. The claim "up at one position and down at another" is the
intersection of two, so its p-value is the larger one (Berger 1982); it is corrected by Bonferroni's rule for all pairs
of settings and positions that were tested.
"""

from itertools import permutations
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_steer.outcomes.table import Measure
from lightning_steer.statistics.dose_response import LEVEL, p_values
from lightning_steer.statistics.estimate import Estimate


class PositionStep(NamedTuple):
    """Two settings between which the measure certainly rises at one position of the answer and falls at another."""

    start: str
    end: str
    rises_at: str
    falls_at: str
    p: float
    """Corrected for all pairs of settings and positions."""


class PositionOutcome(NamedTuple):
    """One measure by the position of the wanted answer."""

    changes: dict[str, dict[str, Estimate]]
    """By steered setting and position: the paired change from the baseline."""
    step: PositionStep | None
    """The most certain one; None if none is certain."""
    claims: int
    """Number of claims that were tested."""


def describe(measure: Measure) -> PositionOutcome | None:
    """Return the changes at each position; None if fewer than two positions are named."""
    if measure.position is None or len(measure.positions) < 2:
        return None
    places = {
        name: np.flatnonzero(measure.position == i)
        for i, name in sorted(enumerate(measure.positions), key=itemgetter(1))
    }
    kind, changes = measure.kind_of_change(), measure.changes()
    estimates = {
        name: kind.estimate(changes[:, rows].T, None if measure.cluster is None else measure.cluster[rows])
        for name, rows in places.items()
    }
    steered = [setting.name for setting in measure.settings[1:]]
    by_setting = {setting: {name: estimates[name][i] for name in places} for i, setting in enumerate(steered)}
    pairs = _pairs(measure)
    claims = len(pairs) * len(places) * (len(places) - 1)
    rise, fall = ({name: _p(measure, rows, pairs, sign, claims) for name, rows in places.items()} for sign in (1, -1))
    best = None
    for up, down in permutations(places, 2):
        p = np.minimum(np.maximum(rise[up], fall[down]) * claims, 1.0)
        index = int(np.argmin(p))
        if p[index] < LEVEL and (best is None or p[index] < best.p):
            start, end = (measure.settings[i].name for i in pairs[index])
            best = PositionStep(start, end, up, down, float(p[index]))
    return PositionOutcome(by_setting, best, claims)


def _pairs(measure: Measure) -> list[tuple[int, int]]:
    """Return the pairs of settings to compare: each with the baseline, and each strength with its opposite."""
    pairs = [(0, i) for i in range(1, len(measure.settings))]
    zero = measure.settings[0].strength
    if zero is None:
        return pairs
    shifts = [None if setting.strength is None else setting.strength - zero for setting in measure.settings]
    index = {shift: i for i, shift in enumerate(shifts) if shift is not None}
    return pairs + [(index[-shift], i) for shift, i in index.items() if shift > 0 and -shift in index]


def _p(measure: Measure, rows: NDArray, pairs: list[tuple[int, int]], sign: int, claims: int) -> NDArray:
    """Return p-values ``[pairs]`` of "it does not move in the direction ``sign`` at this position"."""
    values = measure.values[:, rows]
    differences = sign * np.stack([values[end] - values[start] for start, end in pairs])
    cluster = None if measure.cluster is None else measure.cluster[rows]
    return p_values(differences, measure.share, measure.low, measure.high, cluster, claims)
