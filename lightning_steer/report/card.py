"""One run's report in one folder: numbers as JSON, text as Markdown, figures as PNG and SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lightning_steer.escapes import for_markdown
from lightning_steer.markdown import table
from lightning_steer.report import figures, tables
from lightning_steer.report.files import write_figure, write_json, write_text
from lightning_steer.report.labels import word
from lightning_steer.report.nulls import nulls

ROWS = {
    "baseline": "baseline (unsteered)",
    "random_control": "random direction, equal norm",
    "mean_ablation": "mean ablation of the site",
    "constant_class": "constant class",
    "steered": "",
    "fitted_rows": "",
    "oracle_patch": "oracle patch",
}


def comparison(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the method among its baselines, as rows of a table."""
    by_row = {**report["baselines"], "steered": report["metrics"], "fitted_rows": report["fitted_rows"]}
    names = {**ROWS, "steered": report["method"], "fitted_rows": f"{report['method']}, on the rows it was fitted to"}
    return {names[key]: by_row[key] for key in ROWS if key in by_row}


SHOWN = (
    "They show what any push of this length does. They do not show what a method does that is fitted to exchanged "
    "labels, nor what a push does along directions in which activations vary."
)


def random_row(report: Mapping[str, Any]) -> str:
    """Explain the row of random directions."""
    columns = report.get("baselines", {}).get("random_control", {})
    draws = next(iter(columns.values()), None)
    if draws is None:
        return ""
    # reports of older versions ranked every column as if larger were better
    better = {name: column.get("higher_is_better", True) for name, column in columns.items()}
    high, low, neither = (
        [name for name, value in better.items() if value is direction] for direction in (True, False, None)
    )
    good = " and ".join(f"{label} {', '.join(names)}" for label, names in (("high", high), ("low", low)) if names)
    unranked = f"; no p for {', '.join(neither)}, where neither direction is wanted as such" if neither else ""
    text = (
        f"Random directions: the median (minimum to maximum) of {draws['n']} draws (seed 0) that favour no direction "
        "(isotropic), each added at every site as long as the method's own mean shift there"
    )
    if report.get("searched"):
        return (
            f"{text}. No rank p-value: the setting was chosen for the vector and not for them, so that even one of "
            f"them would often seem the best. {SHOWN}"
        )
    return (
        f"{text}, and the rank p-value of the method, (1 + draws at least as good) / (1 + draws): near 0 where hardly "
        f"any draw does as well, near 1 where nearly all do. Good is {good or 'nothing'}{unranked}. One p for each "
        f"column, uncorrected. {SHOWN}"
    )


def where(report: Mapping[str, Any]) -> str:
    """State the network and, where the report tells, the layers and tokens that are steered."""
    place = f", steered at {report['place']}" if report.get("place") else ""
    return f"{report['backbone']}{place}."


TEXTS: tuple[str, ...] = ("prompt", "baseline", "steered")
PARTS = {"fitted": "fitted to", "selection": "strength chosen on", "held_out": "tested on"}


def data(report: Mapping[str, Any]) -> str:
    """State the rows and clusters of each part, and how many held-out rows share their continuations."""
    parts = report.get("data", {})
    if not parts:
        return ""
    counts = ", ".join(f"{words} {_rows(parts[name])}" for name, words in PARTS.items())
    clustered = any(parts[name]["clusters"] < parts[name]["rows"] for name in PARTS)
    note = " Rows of one cluster share a prompt, a topic, a target term or both continuations, and are not independent."
    repeated = parts.get("repeated")
    repeats = ""
    if repeated and repeated["distinct"] > 1 and repeated["held_out"]:
        repeats = f" {repeated['held_out']:,} of the held-out rows have the same two continuations as another of them."
    return f"Data: {counts}.{note if clustered else ''}{repeats}"


def _rows(part: Mapping[str, int]) -> str:
    rows, clusters = part["rows"], part["clusters"]
    return f"{rows:,} row{'s' * (rows != 1)}" + (
        f" in {clusters:,} cluster{'s' * (clusters != 1)}" if clusters < rows else ""
    )


def price(report: Mapping[str, Any]) -> str:
    """State the side effects: drift of other outputs, and of reference texts."""
    costs = [name for name in report["metrics"] if name.startswith(("drift", "reference_", "text_")) or name == "kl"]
    shown = "; ".join(f"{word(name)} {tables.cell(report['metrics'][name])}" for name in costs)
    return f"At the price of: {shown}." if shown else ""


BETTER = {True: "higher", False: "lower", None: "-"}


def legend(report: Mapping[str, Any]) -> str:
    """Explain the table's columns: meaning, better direction, number of rows."""
    ranked = report["baselines"].get("random_control", {})
    rows = []
    for name in report["baselines"]["baseline"]:
        estimate = report["metrics"].get(name, {})
        counts = [f"{count:,.0f}" if count else "-" for count in (estimate.get("n"), estimate.get("clusters"))]
        better = BETTER[ranked.get(name, {}).get("higher_is_better")]
        rows.append([*map(for_markdown, (name, word(name), better)), *counts])
    return "\n".join(table(("column", "what it is", "better", "n", "clusters"), rows)) + "\n"


def groups(report: Mapping[str, Any]) -> str:
    """Return the measures of each group of held-out rows, with its number of rows and clusters."""
    rows, columns = report["groups"]["rows"], list(report["baselines"]["baseline"])
    named = {f"{name} ({tables.counted(next(iter(row.values())))})": row for name, row in rows.items()}
    return tables.markdown(named, [column for column in columns if any(column in row for row in rows.values())])


def footnotes(report: Mapping[str, Any]) -> list[str]:
    """State how the report's intervals were computed, or why there is none."""
    return tables.footnotes([report["metrics"], *report.get("baselines", {}).values()])


def markdown(report: Mapping[str, Any], figure_names: list[str]) -> str:
    """Return the report as Markdown."""
    columns = list(report["baselines"]["baseline"])
    other_metrics = {name: estimate for name, estimate in report["metrics"].items() if name not in columns}
    lines = [
        f"# {for_markdown(report['experiment'])}: {for_markdown(report['method'])}\n",
        f"{for_markdown(where(report))}\n",
        f"{for_markdown(report['verdict'])} {for_markdown(price(report))}\n",
        *([f"Why this strength: {for_markdown(report['choice'])}.\n"] if report.get("choice") else []),
        *([f"{for_markdown(report['beside']['sentence'])}\n"] if report.get("beside") else []),
        *(f"> **Warning.** {for_markdown(warning)}\n" for warning in report["warnings"]),
        f"{data(report)} {for_markdown(nulls(report))}\n",
        f"Task: {for_markdown(report['task'])}. Seed {report['seed']}. Values are followed by their "
        f"95 % interval over {tables.counted(report['metrics'][columns[0]])}. "
        f"{random_row(report)}\n",
        tables.markdown(comparison(report), columns),
        legend(report),
        *([f"## By {report['groups']['by']}\n", groups(report)] if report.get("groups") else []),
        "\n".join(
            f"- `{name}` {tables.cell(estimate)} (n = {estimate['n']})" for name, estimate in other_metrics.items()
        )
        + "\n",
        *(f"{for_markdown(note)}\n" for note in footnotes(report)),
        *(f"![{name}]({name}.png)\n" for name in figure_names),
        *(["## Text at held-out prompts\n", texts(report["texts"])] if report.get("texts") else []),
        "Versions: " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()) + "\n",
    ]
    return "\n".join(lines)


def texts(written: Sequence[Mapping[str, str]]) -> str:
    """Return prompts with the baseline's and the steered continuation of each, as a table."""
    return "\n".join(table(TEXTS, [[for_markdown(row[name]) for name in TEXTS] for row in written])) + "\n"


def text(report: Mapping[str, Any]) -> str:
    """Return the report for a terminal: verdict, reason for the strength, warnings, the method among its baselines."""
    warnings = "".join(f"\nWarning: {warning}" for warning in report["warnings"])
    table = tables.text(comparison(report), list(report["baselines"]["baseline"]))
    choice = f"\nWhy this strength: {report['choice']}." if report.get("choice") else ""
    choice += f"\n{report['beside']['sentence']}" if report.get("beside") else ""
    notes = "\n".join([random_row(report), *footnotes(report)])
    return (
        f"{where(report)}\n{report['verdict']} {price(report)}\n{data(report)} {nulls(report)}{choice}{warnings}\n\n"
        f"{table}\n{notes}\n"
    )


def write(folder: Path, report: Mapping[str, Any]) -> dict[str, Figure]:
    """Write ``report.json``, ``report.md`` and the figures into ``folder``; return the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = figures.all_of(report)
    for name, figure in drawn.items():
        write_figure(figure, folder, name)
    write_text(folder / "report.md", markdown(report, list(drawn)))
    write_json(folder / "report.json", report)
    return drawn
