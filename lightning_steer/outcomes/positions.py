"""Does steering move the behaviour, or the place of the answer? Changes where the wanted answer stood at each place.

A vector for a letter moves the wanted answer up where that letter is the wanted one, and down where it is not; a
vector for the behaviour moves it up at every place. The claim "up at one place and down at another" is the
intersection of two, so its p-value is the larger one (Berger 1982); it is corrected by Bonferroni's rule for all pairs
of settings and of places that were looked at.
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
    """Two settings between which the measure certainly rises at one place of the answer and falls at another."""

    start: str
    end: str
    rises_at: str
    falls_at: str
    p: float
    """Corrected for all pairs of settings and places."""


class PositionOutcome(NamedTuple):
    """One measure by the place where the wanted answer stood."""

    changes: dict[str, dict[str, Estimate]]
    """By steered setting, by place: the paired change from the baseline."""
    step: PositionStep | None
    """The surest; None if none is certain."""
    claims: int
    """How many were looked at."""


def describe(measure: Measure) -> PositionOutcome | None:
    """Return the changes at each place; None where no places are named, or a single one."""
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
        both = np.minimum(np.maximum(rise[up], fall[down]) * claims, 1.0)
        at = int(np.argmin(both))
        if both[at] < LEVEL and (best is None or both[at] < best.p):
            start, end = (measure.settings[i].name for i in pairs[at])
            best = PositionStep(start, end, up, down, float(both[at]))
    return PositionOutcome(by_setting, best, claims)


def _pairs(measure: Measure) -> list[tuple[int, int]]:
    """Return the settings to be compared: each with the baseline, and each strength with its opposite."""
    pairs = [(0, i) for i in range(1, len(measure.settings))]
    zero = measure.settings[0].strength
    if zero is None:
        return pairs
    shifts = [None if setting.strength is None else setting.strength - zero for setting in measure.settings]
    at = {shift: i for i, shift in enumerate(shifts) if shift is not None}
    return pairs + [(at[-shift], i) for shift, i in at.items() if shift > 0 and -shift in at]


def _p(measure: Measure, rows: NDArray, pairs: list[tuple[int, int]], sign: int, claims: int) -> NDArray:
    """Return ``[pairs]`` p-values of "it does not move in the direction ``sign`` at this place"."""
    values = measure.values[:, rows]
    differences = sign * np.stack([values[end] - values[start] for start, end in pairs])
    cluster = None if measure.cluster is None else measure.cluster[rows]
    return p_values(differences, measure.share, measure.low, measure.high, cluster, claims)
