"""Compare several judges of the same items: agreement on the effect, change of the verdict, correction by labels."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_steer.errors import UserError
from lightning_steer.outcomes.records import JudgeComparison, JudgedSetting, LabelledMeasure, LabelledSetting
from lightning_steer.outcomes.rows import Rows
from lightning_steer.outcomes.table import Measure
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Mean
from lightning_steer.statistics.prediction_powered import corrected_change


class NothingSharedError(UserError):
    """Two judges scored no item in common."""


class Roles(NamedTuple):
    """The roles of the judges."""

    judge: str | None
    """The judge whose scores count; None if the table names no judge, or a single one."""
    others: tuple[str, ...]
    human: str | None


def roles(rows: Rows, judge: str | None, human: str | None) -> Roles:
    """Return whose scores count and who is compared; raise ValueError for a name that is not in the table."""
    judges = rows.listed("judge")
    if human is not None and human not in judges:
        names = ", ".join(judges) or "none"
        raise UserError(f"no row is of the judge {human!r}, whose labels count; there are {names}")
    if human is not None and human == judge:
        raise UserError(f"the labels of {human!r} correct another judge: name that one with --judge")
    others = [name for name in judges if name != human]
    if judge is None and human is not None and len(others) == 1:
        judge = others[0]
    return Roles(judge, tuple(name for name in others if name != judge) if judge is not None else (), human)


def scored(rows: Rows, name: str) -> set[str]:
    """Return the measures that a judge scored."""
    is_scored = rows.column("judge") == rows.listed("judge").index(name)
    measures = rows.listed("measure")
    return {measures[i] for i in np.unique(rows.column("measure")[is_scored])}


def compare(judge: str, own: Measure, other: str, others: Measure) -> JudgeComparison:
    """Compare two judges' effects on the items and settings that both scored; may raise NothingSharedError."""
    own_shared, other_shared, names = _shared(own, others)
    width = max(own_shared.high - own_shared.low, other_shared.high - other_shared.low)
    settings = []
    for i, name in enumerate(names[1:], 1):
        a, b = (measure.values[i] - measure.values[0] for measure in (own_shared, other_shared))
        changed = (a != 0) | (b != 0)
        settings.append(
            JudgedSetting(
                name,
                _change(own_shared, a),
                _change(other_shared, b),
                Mean(-2 * width, 2 * width).estimate(a - b, own_shared.cluster)[0],
                float((own_shared.values[i] == other_shared.values[i]).mean()),
                float((a == b)[changed].mean()) if changed.any() else None,
            )
        )
    return JudgeComparison(own.name, judge, other, own_shared.values.shape[1], tuple(settings))


def correct(judge: str, own: Measure, human: str, labels: Measure) -> LabelledMeasure:
    """Return each setting's change, corrected by labels; raise ValueError if no labelled item was judged."""
    labelled, _, names = _shared(labels, own)
    units = dict(zip(_units(own), range(len(own.items)), strict=True))
    rows = np.array([units[unit] for unit in _units(labelled)])
    unlabelled = np.setdiff1d(np.arange(len(own.items)), rows)
    index = {setting.name: i for i, setting in enumerate(own.settings)}
    width = own.high - own.low
    settings = []
    for i, name in enumerate(names[1:], 1):
        change, judged = labelled.values[i] - labelled.values[0], own.values[index[name]] - own.values[0]
        if own.cluster is None:
            parts = change, judged[rows], judged[unlabelled]
            by_labels, corrected, weight = corrected_change(*parts, width, own.share and labelled.share)
        else:
            by_labels, weight = _change(labelled, change), 0.0
            corrected = by_labels
        settings.append(LabelledSetting(name, _change(own, judged), by_labels, corrected, weight))
    return LabelledMeasure(own.name, judge, human, len(rows), len(own.items), own.cluster is not None, tuple(settings))


def _change(measure: Measure, change: NDArray) -> Estimate:
    return measure.kind_of_change().estimate(change, measure.cluster)[0]


def _units(measure: Measure) -> list[tuple[str, str]]:
    """Return each unit's item and seed."""
    return list(zip(measure.items, measure.seeds, strict=True))


def _shared(own: Measure, others: Measure) -> tuple[Measure, Measure, list[str]]:
    """Return two measures on the items and settings of both, in the order of the first."""
    index_of_unit: Mapping[tuple[str, str], int] = {unit: i for i, unit in enumerate(_units(others))}
    pairs = [(i, index_of_unit[unit]) for i, unit in enumerate(_units(own)) if unit in index_of_unit]
    setting_index = {setting.name: i for i, setting in enumerate(others.settings)}
    names = [setting.name for setting in own.settings if setting.name in setting_index]
    if not pairs or len(names) < 2:
        raise NothingSharedError(
            f"two judges of {own.name!r} share no item, or no steered setting: they cannot be compared"
        )
    first, second = (np.array(column) for column in zip(*pairs, strict=True))
    return own.part(first).at(names), others.part(second).at(names), names
