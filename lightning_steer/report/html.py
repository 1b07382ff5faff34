"""All runs below a folder as one HTML page: self-contained, without scripts, fonts or other network resources."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_steer.report import card, svg
from lightning_steer.report.document import Drawing, render
from lightning_steer.report.figures import DAMAGE, RANDOM
from lightning_steer.report.labels import word
from lightning_steer.report.opening import opening
from lightning_steer.report.svg import COLOURS
from lightning_steer.report.tables import cell, counted, number

CONTROLS = {
    "baseline": "the unsteered network",
    "random_control": "directions drawn at random, as long as the method's mean shift: would any push have done it?",
    "mean_ablation": "the site's output replaced by its mean: how much does the network need this site?",
    "constant_class": "always the class that is the most frequent in the fitted rows: no steering at all",
    "oracle_patch": "the site's output replaced by that of a positive row: the most that a change at the site can do",
    "fitted_rows": "the rows that the method was fitted to: how much better it is there shows how far it carries over",
}

OPTIONAL = {"verdict": "", "warnings": (), "choice": "", "texts": (), "intervals": ""}
"""What a report may lack."""


def page(reports: Sequence[Mapping[str, Any]], configurations: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        reports: results of :func:`lightning_steer.report.runs.read`, each checked.
        configurations: YAML configuration of each run.
    """
    return render(
        "report/report.html",
        title=f"Steering report: {len(reports)} runs" if len(reports) > 1 else "Steering report: one run",
        opening=opening(reports),
        runs=[_run(report, configurations.get(report["run"], "")) for report in reports],
        texts=card.TEXTS,
        cell=cell,
        word=word,
        where=card.where,
        data=card.data,
        price=card.price,
        random_row=card.random_row,
        footnotes=card.footnotes,
    )


def _run(report: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """Return what the template shows of a run beside its report."""
    metrics, baselines = report["metrics"], report.get("baselines", {})
    groups = report.get("groups", {}).get("rows", {})
    columns, group_columns = list(baselines.get("baseline", {})), list(next(iter(groups.values()), {}))
    headline, bound = metrics.get(columns[0]) if columns else None, metrics.get("certified_bound")
    return {
        "report": {**OPTIONAL, **report},
        "drawings": [drawing for draw in DRAWINGS if (drawing := draw(report))],
        "columns": ["", *map(word, columns)],
        "rows": _rows(card.comparison({"fitted_rows": {}, **report}), columns) if columns else [],
        "counts": "" if headline is None else f"{counted(headline)}. ",
        "controls": [
            (key.replace("_", " "), text) for key, text in CONTROLS.items() if key in baselines or report.get(key)
        ],
        "group_columns": ["", *map(word, group_columns)],
        "groups": _rows(groups, group_columns),
        "certified": "" if bound is None else _certified(bound),
        "further": {name: estimate for name, estimate in metrics.items() if name not in columns},
        "facts": {
            "experiment": report["experiment"],
            "network": report["backbone"],
            "seed": str(report["seed"]),
            "versions": ", ".join(f"{name} {version}" for name, version in report.get("versions", {}).items()),
        },
        "configuration": configuration,
    }


def _rows(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> list[list[str]]:
    """Return the name and the cells of each row."""
    return [
        [name, *(cell(row[column]) if row.get(column) is not None else "-" for column in columns)]
        for name, row in rows.items()
    ]


def _dose_response(report: Mapping[str, Any]) -> Drawing | None:
    curve = report.get("curves", {}).get("strength", {})
    settings = report.get("dose_response", {})
    measures = [
        name
        for name in settings.get(
            "measures", ("target_accuracy", "target_unchanged", "off_target_accuracy", "exact_match")
        )
        if name in curve
    ]
    if not measures or not curve["x"]:
        return None
    curves = {word(name): curve[name] for name in measures}
    chosen = report["metrics"].get("strength", {}).get("value")
    unit = settings.get("unit", "share of held-out rows")
    random = report.get("curves", {}).get("random", {})
    band = random[measures[0]] if len(measures) == 1 and measures[0] in random and random["x"] == curve["x"] else None
    notes = [] if band is None else [f"Grey: {RANDOM.format(report.get('random_curve', 'some'))}."]
    if chosen is not None:
        is_inside = min(0.0, *curve["x"]) <= chosen <= max(curve["x"])
        notes.append(f"{'Dotted' if is_inside else 'Not in the picture'}: the chosen strength, {chosen:g}.")
    chart = svg.lines(curve["x"], curves, COLOURS, chosen, ("strength", unit), band)
    return Drawing("Dose-response", chart, notes, svg.key(list(curves), COLOURS))


def _damage(report: Mapping[str, Any]) -> Drawing | None:
    curve = report.get("curves", {}).get("damage", {})
    if DAMAGE not in curve:
        return None
    chosen = report["metrics"].get("strength", {}).get("value")
    titles = ("strength", "KL, nats per token")
    chart = svg.lines(curve["x"], {word(DAMAGE): curve[DAMAGE]}, COLOURS[1:], chosen, titles, share=False)
    return Drawing("Damage", chart, ["KL to the unsteered model on reference texts."])


def _profile(report: Mapping[str, Any]) -> Drawing | None:
    profile = report.get("profile", {})
    name = "kl" if "kl" in profile else next(iter(profile), None)
    if name is None or not profile[name]["value"]:
        return None
    title = "KL, nats" if name == "kl" else name
    has_targets = any(value is None for value in profile[name]["value"])
    chart = svg.bars(profile[name], COLOURS[0], ("attribute", title))
    return Drawing("What else moved, by attribute", chart, ["Shaded: meant to move."] if has_targets else [])


DRAWINGS = (_dose_response, _damage, _profile)


def _certified(bound: Mapping[str, Any]) -> str:
    if bound["value"] is None or not bound["value"] > 0:
        return "No improvement is certified."
    on_average = "" if bound["high"] is None else " on average"  # over repetitions; one run's bound has no upper end
    bound_text, clusters = cell(bound) if on_average else number(bound["value"]), bound.get("clusters")
    if clusters:
        unit = f"the mean over {clusters:,.0f} clusters, each counting once,"
        return f"Certified{on_average}: {unit} improves by more than {bound_text}."
    return f"Certified{on_average}: an improvement of more than {bound_text}."
