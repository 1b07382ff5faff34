"""Turn rows into measures, with every item paired with its baseline; errors name the table's row."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lightning_steer.errors import UserError
from lightning_steer.outcomes.rows import Rows, number, written
from lightning_steer.outcomes.table import Measure, OutcomeSetting


def measures(
    rows: Rows, baseline: str | None, ranges: dict[str, tuple[float, float]], judge: str | None = None
) -> dict[str, Measure]:
    """Return the measures of a table by name, in the order of their first rows.

    Args:
        rows: all rows.
        baseline: the setting without steering; None: strength 0, or the setting called ``baseline``.
        ranges: declared least and largest value by measure.
        judge: the judge whose scores are read if several judges scored; rows without a judge are always read.

    Raises:
        ValueError: naming the row, or the item and setting that is missing.
    """
    if not len(rows):
        raise UserError(f"{', '.join(rows.sources)}: no rows: a header and at least one row a setting were expected")
    names = rows.listed("measure")
    for name in ranges:
        if name not in names:
            raise UserError(f"a range is declared for {name!r}, which is no measure; there are {', '.join(names)}")
    settings, setting_numbers = _settings(rows, baseline)
    row_settings = setting_numbers[rows.column("setting")]
    is_read = _of_judge(rows, judge)
    parts = {name: np.flatnonzero((rows.column("measure") == i) & is_read) for i, name in enumerate(names)}
    declared = {**rows.ranges, **ranges}
    return {
        name: _measure(rows, name, indices, row_settings, settings, declared.get(name))
        for name, indices in parts.items()
        if len(indices)
    }


def _of_judge(rows: Rows, judge: str | None) -> NDArray:
    known, codes = rows.listed("judge"), rows.column("judge")
    if judge is None and len(known) > 1:
        raise UserError(
            f"{rows.where(int(np.flatnonzero(codes == 1)[0]))}, column judge: several judges scored ({_some(known)}): "
            "name the one to go by with --judge"
        )
    if judge is None:
        return np.ones(len(rows), dtype=bool)
    if judge not in known:
        raise UserError(f"no row is of the judge {judge!r}; there are {_some(known) or 'none'}")
    return (codes == known.index(judge)) | (codes < 0)


def _settings(rows: Rows, baseline: str | None) -> tuple[list[OutcomeSetting], NDArray]:
    """Return the settings, the baseline first, and the index of each name of the table among them."""
    names = rows.listed("setting")
    strengths = [number(name) for name in names]
    chosen = None if baseline is None else (number(baseline), baseline)
    named = [i for i, strength in enumerate(strengths) if strength is None]
    if len(named) < len(names):  # numbers, and at most a named baseline
        unknown = [i for i in named if baseline is None or names[i] != baseline]
        if unknown:
            row = int(np.flatnonzero(rows.column("setting") == unknown[0])[0])
            raise UserError(
                f"{rows.where(row)}, column setting: {names[unknown[0]][:40]!r} is a name among strengths such as "
                f"{next(n for n, s in zip(names, strengths, strict=True) if s is not None)}: write all settings as "
                "numbers, or all as names"
            )
        if chosen is not None and chosen[0] is None and not named:
            raise UserError(
                f"no row is of the baseline {baseline!r}; strengths are {_some(names)}: add its rows, or name another"
            )
        zero = 0.0 if chosen is None or chosen[0] is None else chosen[0]
        if named and zero in strengths:
            raise UserError(f"the baseline is {baseline!r}, but there is a strength 0 as well: leave one of them out")
        numbers = [zero if strength is None else strength for strength in strengths]
        if zero not in numbers:
            known = _some(map(written, sorted(set(numbers))))
            raise UserError(
                f"no row is of the baseline, strength {written(zero)}; strengths are {known}: add its rows, "
                "or name the baseline with --baseline"
            )
        order = sorted(set(numbers), key=lambda s: (s != zero, abs(s - zero), s))
        label = names[named[0]] if named else written(zero)
        ordered_settings = [OutcomeSetting(label if s == zero else written(s), s) for s in order]
        return ordered_settings, np.array([order.index(s) for s in numbers])
    baseline_name = "baseline" if baseline is None else baseline
    if baseline_name not in names:
        raise UserError(
            f"no row is of the baseline {baseline_name!r}; settings are {_some(names)}: add its rows, or name the "
            "baseline with --baseline"
        )
    ordered = [baseline_name, *(name for name in names if name != baseline_name)]
    return [OutcomeSetting(name, None) for name in ordered], np.array([ordered.index(name) for name in names])


def _some(names: Iterable[str], limit: int = 8) -> str:
    listed = [name[:40] for name in names]
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")


def _measure(
    rows: Rows,
    name: str,
    indices: NDArray,
    setting: NDArray,
    settings: list[OutcomeSetting],
    declared: tuple[float, float] | None,
) -> Measure:
    values, item, seed = (
        np.frombuffer(rows.values)[indices],
        rows.column("item")[indices],
        rows.column("seed")[indices],
    )
    share, certain, low, high = _scale(rows, name, indices, values, declared)
    used = np.unique(setting[indices])
    if used[0] != 0:
        raise UserError(
            f"{name!r} has no row of the baseline {settings[0].name!r}: add them ({rows.where(int(indices[0]))})"
        )
    if len(used) < 2:
        raise UserError(
            f"{name!r} has rows of a single setting, {settings[used[0]].name!r}: a baseline and at least one steered "
            f"setting were expected ({rows.where(int(indices[0]))})"
        )
    units, unit_of_row = np.unique(item * (len(rows.names["seed"]) + 1) + seed + 1, return_inverse=True)
    column = np.searchsorted(used, setting[indices])
    place = column * len(units) + unit_of_row
    order = np.argsort(place, kind="stable")
    duplicates = np.flatnonzero(np.diff(place[order]) == 0)
    if len(duplicates):
        first, second = int(indices[order[duplicates[0]]]), int(indices[order[duplicates[0] + 1]])
        raise UserError(
            f"{rows.where(second)}: {_cell(rows, second)} stands there again, first in row {rows.lines[first]}"
            + (f" of {rows.sources[rows.files[first]]}" if rows.files[first] != rows.files[second] else "")
            + ": keep one of them, or tell them apart by a seed"
        )
    if len(place) < len(used) * len(units):
        missing = np.setdiff1d(np.arange(len(used) * len(units)), place)
        missing_column, unit = divmod(int(missing[0]), len(units))
        row = int(indices[np.flatnonzero(unit_of_row == unit)[0]])
        raise UserError(
            f"{rows.where(row)}: {_cell(rows, row, settings[used[missing_column]].name)} is missing, though this item "
            f"has other settings ({len(missing)} such gap{'s' * (len(missing) > 1)}): every item needs a value at "
            "every setting of its measure"
        )
    first = np.unique(unit_of_row, return_index=True)[1]
    table = np.empty(len(place))
    table[place] = values
    items, seeds = rows.listed("item"), rows.listed("seed")
    cluster, clusters = _constant(rows, "cluster", indices, unit_of_row, first)
    group, groups = _constant(rows, "group", indices, unit_of_row, first)
    position, positions = _constant(rows, "position", indices, unit_of_row, first)
    unit_items = item[first]
    if cluster is None and len(np.unique(unit_items)) < len(unit_items):
        item_codes, cluster = np.unique(unit_items, return_inverse=True)
        clusters = tuple(items[i] for i in item_codes)
    return Measure(
        name=name,
        share=share,
        declared=certain,
        low=low,
        high=high,
        settings=tuple(settings[i] for i in used),
        values=table.reshape(len(used), len(units)),
        items=tuple(items[i] for i in unit_items),
        seeds=tuple(seeds[i] if i >= 0 else "" for i in seed[first]),
        cluster=cluster,
        clusters=clusters,
        group=group,
        groups=groups,
        position=position,
        positions=positions,
    )


def _cell(rows: Rows, row: int, setting: str | None = None) -> str:
    parts = {name: rows.codes[name][row] for name in ("item", "setting", "measure", "seed")}
    names = {name: rows.listed(name)[code] for name, code in parts.items() if code >= 0}
    if setting is not None:
        names["setting"] = setting
    return " ".join(f"{name} {text[:40]!r}" for name, text in names.items())


def _scale(
    rows: Rows, name: str, indices: NDArray, values: NDArray, declared: tuple[float, float] | None
) -> tuple[bool, bool, float, float]:
    """Return whether values are only 0 and 1, whether that or the range is certain, and the range."""
    truths = np.frombuffer(rows.truths, dtype=np.int8)[indices]
    if truths.any() and not truths.all():
        row, other = int(indices[truths == 0][0]), int(indices[truths == 1][0])
        raise UserError(
            f"{rows.where(row)}, column value: a number among the true and false of {name!r} (as in row "
            f"{rows.lines[other]}): write one or the other"
        )
    binary = bool(np.isin(values, (0, 1)).all())
    if declared is None:
        return binary, bool(truths.all()), 0.0 if binary else -math.inf, 1.0 if binary else math.inf
    outside = np.flatnonzero((values < declared[0]) | (values > declared[1]))
    if len(outside):
        raise UserError(
            f"{rows.where(int(indices[outside[0]]))}, column value: {values[outside[0]]:g} lies outside the declared "
            f"range of {name!r}, {declared[0]:g} to {declared[1]:g}: declare the true one with --range"
        )
    return binary and declared == (0, 1), True, *declared


def _constant(
    rows: Rows, column: str, indices: NDArray, unit_of_row: NDArray, first: NDArray
) -> tuple[NDArray | None, tuple]:
    """Return the index of each unit's name in a column, and the names; raise ValueError if a unit has several."""
    codes = rows.column(column)[indices]
    if (codes < 0).all():
        return None, ()
    names = rows.listed(column)
    if (codes < 0).any():
        row, other = int(indices[codes < 0][0]), int(indices[codes >= 0][0])
        raise UserError(
            f"{rows.where(row)}: it has no {column}, though row {rows.lines[other]} of the same measure has one: give "
            f"every row its {column}"
        )
    unit_codes = codes[first]
    wrong = np.flatnonzero(codes != unit_codes[unit_of_row])
    if len(wrong):
        row, other = int(indices[wrong[0]]), int(indices[first[unit_of_row[wrong[0]]]])
        earlier = names[unit_codes[unit_of_row[wrong[0]]]][:40]
        raise UserError(
            f"{rows.where(row)}, column {column}: item {rows.listed('item')[rows.codes['item'][row]][:40]!r} is in "
            f"{names[codes[wrong[0]]][:40]!r}, but in {earlier!r} in row {rows.lines[other]}: an item has one {column}"
        )
    distinct, numbers = np.unique(unit_codes, return_inverse=True)
    return numbers, tuple(names[i] for i in distinct)
