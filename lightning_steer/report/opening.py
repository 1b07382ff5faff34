"""The opening of a page of runs: one table, and one figure of effect against damage with a point for each run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from lightning_steer.report import svg
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


def opening(reports: Sequence[Report]) -> str:
    """Return the table of runs and, of several, the figure of those that share their measures, as HTML."""
    kinds = [shown(report) for report in reports]
    head = "".join(f'<th scope="col">{name}</th>' for name in ("", "run", "method", "where", "effect", "damage"))
    rows = "".join(_row(number, report, kind) for number, (report, kind) in enumerate(zip(reports, kinds, strict=True)))
    table = (
        f'<nav class="wide"><table class="compared"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></nav>\n'
    )
    return table + _figure(reports, kinds)


def _row(number: int, report: Report, kind: Shown) -> str:
    count = len(report.get("warnings", []))
    flags = f" <strong>{count} warning{'s' * (count > 1)}.</strong>" if count else ""
    place = ", ".join(filter(None, [report["backbone"], report.get("place", "")]))
    figures = "".join(
        f'<td data-name="{title}"><span>{_figured(report, name)}</span></td>'
        for title, name in (("effect", kind.effect), ("damage", kind.damage))
    )
    return (
        f'<tr><td>{number + 1}</td><th scope="row"><a href="#run-{number}">{escape(report["run"])}</a>{flags}</th>'
        f'<td data-name="method"><span>{escape(report["method"])}</span></td>'
        f'<td data-name="where"><span>{escape(place)}</span></td>{figures}</tr>'
    )


def _figured(report: Report, name: str | None) -> str:
    return "-" if name is None else f"{cell(report['metrics'][name])}<small>{escape(word(name))}</small>"


def _figure(reports: Sequence[Report], kinds: Sequence[Shown]) -> str:
    whole = [kind for kind in kinds if kind.effect is not None and kind.damage is not None]
    if len(whole) < 2:
        return ""
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
    return (
        f"<figure><figcaption>Effect against damage</figcaption>{svg.scatter(points, svg.COLOURS[0], budgets, titles)}"
        f'<p class="soft">{notes}</p></figure>\n'
    )
