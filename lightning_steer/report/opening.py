"""The opening of a page of runs: one table, and one figure of effect against damage with a point for each run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lightning_steer.report import svg
from lightning_steer.report.document import Drawing
from lightning_steer.report.labels import word
from lightning_steer.report.tables import cell

DAMAGES = "reference_kl", "drift_kl", "kl"
"""Measures of damage; the first that a run has is shown."""

Report = Mapping[str, Any]


class Shown(NamedTuple):
    """The names of a run's measures of effect and damage; None if it has none."""

    effect: str | None
    damage: str | None


def shown(report: Report) -> Shown:
    """Return the measures that stand for a run: the change of its dose-response's measure, if there is one."""
    metrics = report["metrics"]
    columns = [*report.get("dose_response", {}).get("measures", []), *report.get("baselines", {}).get("baseline", {})]
    names = [name for column in columns for name in (f"{column}_change", column)]
    effect = next((name for name in names if name in metrics and name not in DAMAGES), None)
    return Shown(effect, next((name for name in DAMAGES if name in metrics), None))


def opening(reports: Sequence[Report]) -> dict[str, Any]:
    """Return what ``opening.html`` shows: a row of each run and, of several, the drawing of those that share measures.

    The drawing is None if no two runs have both an effect and a damage.
    """
    kinds = [shown(report) for report in reports]
    rows = [
        {
            "run": report["run"],
            "warnings": len(report.get("warnings", [])),
            "method": report["method"],
            "where": ", ".join(filter(None, [report["backbone"], report.get("place", "")])),
            "figures": [("effect", *_figured(report, kind.effect)), ("damage", *_figured(report, kind.damage))],
        }
        for report, kind in zip(reports, kinds, strict=True)
    ]
    return {"rows": rows, "drawing": _drawing(reports, kinds)}


def _figured(report: Report, name: str | None) -> tuple[str, str]:
    """Return the figure and its label."""
    return ("-", "") if name is None else (cell(report["metrics"][name]), word(name))


def _drawing(reports: Sequence[Report], kinds: Sequence[Shown]) -> Drawing | None:
    whole = [kind for kind in kinds if kind.effect is not None and kind.damage is not None]
    if len(whole) < 2:
        return None
    common = Counter(whole).most_common(1)[0][0]
    points = {
        str(number + 1): (report["metrics"][common.damage], report["metrics"][common.effect])
        for number, (report, kind) in enumerate(zip(reports, kinds, strict=True))
        if kind == common
    }
    budgets = sorted({report["budget"] for report, kind in zip(reports, kinds, strict=True)
                      if kind == common and report.get("budget") is not None})  # fmt: skip
    titles = word(str(common.damage)), word(str(common.effect))
    others = len(reports) - len(points)
    notes = "Numbers are those of the table; lines are 95 % intervals."
    notes += f" Dashed: the budget of damage, {', '.join(f'{one:g}' for one in budgets)}." if budgets else ""
    notes += f" {others} run{'s' * (others > 1)} with other measures not shown." if others else ""
    return Drawing("Effect against damage", svg.scatter(points, svg.COLOURS[0], budgets, titles), [notes])
