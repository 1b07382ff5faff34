"""Several judges of the same items: do they agree on the effect, would another turn the verdict, what do labels say?"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_steer.outcomes.records import JudgeComparison, JudgedSetting, LabelledMeasure, LabelledSetting
from lightning_steer.outcomes.rows import Rows
from lightning_steer.outcomes.table import Measure
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Mean
from lightning_steer.statistics.prediction_powered import corrected_change


class NothingSharedError(ValueError):
    """Two judges scored no item in common."""


class Roles(NamedTuple):
    """Who scored."""

    judge: str | None
    """Whose scores count; None where nobody is named in the table, or a single judge."""
    others: tuple[str, ...]
    human: str | None


def roles(rows: Rows, judge: str | None, human: str | None) -> Roles:
    """Return whose scores count and who is compared; raises ValueError for a name that is not in the table."""
    known = rows.listed("judge")
    if human is not None and human not in known:
        names = ", ".join(known) or "none"
        raise ValueError(f"no row is of the judge {human!r}, whose labels count; there are {names}")
    if human is not None and human == judge:
        raise ValueError(f"the labels of {human!r} correct another judge: name that one with --judge")
    rest = [name for name in known if name != human]
    if judge is None and human is not None and len(rest) == 1:
        judge = rest[0]
    return Roles(judge, tuple(name for name in rest if name != judge) if judge is not None else (), human)


def scored(rows: Rows, name: str) -> set[str]:
    """Return the measures that a judge scored."""
    of_judge = rows.column("judge") == rows.listed("judge").index(name)
    measures = rows.listed("measure")
    return {measures[i] for i in np.unique(rows.column("measure")[of_judge])}


def compare(judge: str, own: Measure, other: str, others: Measure) -> JudgeComparison:
    """Return how two judges see the effect on the items and settings that both scored; may raise NothingSharedError."""
    mine, theirs, names = _shared(own, others)
    width = max(mine.high - mine.low, theirs.high - theirs.low)
    settings = []
    for i, name in enumerate(names[1:], 1):
        a, b = (one.values[i] - one.values[0] for one in (mine, theirs))
        moved = (a != 0) | (b != 0)
        settings.append(
            JudgedSetting(
                name,
                _change(mine, a),
                _change(theirs, b),
                Mean(-2 * width, 2 * width).estimate(a - b, mine.cluster)[0],
                float((mine.values[i] == theirs.values[i]).mean()),
                float((a == b)[moved].mean()) if moved.any() else None,
            )
        )
    return JudgeComparison(own.name, judge, other, mine.values.shape[1], tuple(settings))


def correct(judge: str, own: Measure, human: str, labels: Measure) -> LabelledMeasure:
    """Return each setting's change as labels correct it; raises ValueError if no labelled item was judged."""
    labelled, _, names = _shared(labels, own)
    units = dict(zip(_units(own), range(len(own.items)), strict=True))
    rows = np.array([units[unit] for unit in _units(labelled)])
    rest = np.setdiff1d(np.arange(len(own.items)), rows)
    at = {setting.name: i for i, setting in enumerate(own.settings)}
    width = own.high - own.low
    settings = []
    for i, name in enumerate(names[1:], 1):
        change, judged = labelled.values[i] - labelled.values[0], own.values[at[name]] - own.values[0]
        if own.cluster is None:
            parts = change, judged[rows], judged[rest]
            alone, corrected, weight = corrected_change(*parts, width, own.share and labelled.share)
        else:
            alone, weight = _change(labelled, change), 0.0
            corrected = alone
        settings.append(LabelledSetting(name, _change(own, judged), alone, corrected, weight))
    return LabelledMeasure(own.name, judge, human, len(rows), len(own.items), own.cluster is not None, tuple(settings))


def _change(measure: Measure, change: NDArray) -> Estimate:
    return measure.kind_of_change().estimate(change, measure.cluster)[0]


def _units(measure: Measure) -> list[tuple[str, str]]:
    """Return each unit's item and seed."""
    return list(zip(measure.items, measure.seeds, strict=True))


def _shared(own: Measure, others: Measure) -> tuple[Measure, Measure, list[str]]:
    """Return two measures on the items and settings of both, in the order of the first."""
    theirs: Mapping[tuple[str, str], int] = {unit: i for i, unit in enumerate(_units(others))}
    pairs = [(i, theirs[unit]) for i, unit in enumerate(_units(own)) if unit in theirs]
    at = {setting.name: i for i, setting in enumerate(others.settings)}
    names = [setting.name for setting in own.settings if setting.name in at]
    if not pairs or len(names) < 2:
        raise NothingSharedError(
            f"two judges of {own.name!r} share no item, or no steered setting: they cannot be compared"
        )
    first, second = (np.array(column) for column in zip(*pairs, strict=True))
    return own.part(first).at(names), others.part(second).at(names), names
