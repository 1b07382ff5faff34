"""All runs below a folder as one HTML page: self-contained, without scripts, fonts or other network resources."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lightning_steer.report import svg
from lightning_steer.report.card import TEXTS, comparison, data, footnotes, price, random_row, where
from lightning_steer.report.document import document
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


def page(reports: Sequence[Mapping[str, Any]], configurations: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        reports: results of :func:`lightning_steer.report.runs.read`, each checked.
        configurations: YAML configuration of each run.
    """
    articles = [_article(i, report, configurations.get(report["run"], "")) for i, report in enumerate(reports)]
    count = f"{len(reports)} runs" if len(reports) > 1 else "one run"
    body = (
        '<p class="soft">Figures stand with their 95 % intervals over held-out rows, <em>value [low, high]</em>, or '
        "with the reason why there is none, and beside their controls.</p></header>\n"
        f"{opening(reports)}<main>\n{''.join(articles)}</main>\n"
    )
    title = f"Steering report: {count}"
    return document(title, f"<header><h1>{title}</h1>\n{body}")


def _article(i: int, report: Mapping[str, Any], configuration: str) -> str:
    warnings = "".join(
        f'<p class="warning"><strong>Warning.</strong> {escape(text)}</p>' for text in report.get("warnings", [])
    )
    parts = [
        f'<article id="run-{i}">\n<h2>{escape(report["method"])}</h2>\n',
        f'<p class="soft">{escape(report["run"])} · {escape(where(report))} {escape(report["task"])}</p>\n',
        f'<p class="soft">{escape(data(report))}</p>\n',
        f'<p class="verdict">{escape(report.get("verdict", ""))} {escape(price(report))}</p>\n{warnings}',
        f'<div class="charts">{_dose_response(report)}{_damage(report)}{_profile(report)}</div>\n',
        _compared(report),
        _groups(report),
        _certificate(report),
        _texts(report),
        _rest(report),
        _origin(report, configuration),
        "</article>\n",
    ]
    return "".join(parts)


def _dose_response(report: Mapping[str, Any]) -> str:
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
        return ""
    curves = {word(name): curve[name] for name in measures}
    chosen = report["metrics"].get("strength", {}).get("value")
    unit = settings.get("unit", "share of held-out rows")
    is_inside = chosen is not None and min(0.0, *curve["x"]) <= chosen <= max(curve["x"])
    prefix = "Dotted: the" if is_inside else "Not in the picture: the"
    dotted = "" if chosen is None else f'<p class="soft">{prefix} chosen strength, {chosen:g}.</p>'
    random = report.get("curves", {}).get("random", {})
    band = random[measures[0]] if len(measures) == 1 and measures[0] in random and random["x"] == curve["x"] else None
    grey = (
        ""
        if band is None
        else f'<p class="soft">Grey: {RANDOM.format(escape(str(report.get("random_curve", "some"))))}.</p>'
    )
    chart = svg.lines(curve["x"], curves, COLOURS, chosen, ("strength", unit), band)
    key = svg.key(list(curves), COLOURS)
    return f"<figure><figcaption>Dose-response</figcaption>{chart}{key}{grey}{dotted}</figure>"


def _damage(report: Mapping[str, Any]) -> str:
    curve = report.get("curves", {}).get("damage", {})
    if DAMAGE not in curve:
        return ""
    chosen = report["metrics"].get("strength", {}).get("value")
    chart = svg.lines(
        curve["x"], {word(DAMAGE): curve[DAMAGE]}, COLOURS[1:], chosen, ("strength", "KL, nats per token"), share=False
    )
    note = '<p class="soft">KL to the unsteered model on reference texts.</p>'
    return f"<figure><figcaption>Damage</figcaption>{chart}{note}</figure>"


def _profile(report: Mapping[str, Any]) -> str:
    profile = report.get("profile", {})
    name = "kl" if "kl" in profile else next(iter(profile), None)
    if name is None or not profile[name]["value"]:
        return ""
    title = "KL, nats" if name == "kl" else name
    has_targets = any(value is None for value in profile[name]["value"])
    shaded = '<p class="soft">Shaded: meant to move.</p>' if has_targets else ""
    return (
        "<figure><figcaption>What else moved, by attribute</figcaption>"
        f"{svg.bars(profile[name], COLOURS[0], ('attribute', title))}{shaded}</figure>"
    )


def _compared(report: Mapping[str, Any]) -> str:
    baselines = report.get("baselines", {})
    columns = list(baselines.get("baseline", {}))
    if not columns:
        return ""
    rows = comparison({"fitted_rows": {}, **report})
    head = "".join(f'<th scope="col">{escape(word(name))}</th>' for name in columns)
    body = "".join(
        f'<tr{" class=own" if name == report["method"] else ""}><th scope="row">{escape(name)}</th>'
        + "".join(f'<td data-name="{escape(word(c))}"><span>{_cell(row.get(c))}</span></td>' for c in columns)
        + "</tr>"
        for name, row in rows.items()
        if row
    )
    controls = {key.replace("_", " "): text for key, text in CONTROLS.items() if key in baselines or report.get(key)}
    legend = "".join(f"<li><em>{escape(key)}</em>: {text}</li>" for key, text in controls.items())
    headline = report["metrics"].get(columns[0])
    counts = "" if headline is None else f"{counted(headline)}. "
    return (
        '<h3>Beside its controls</h3>\n<div class="wide"><table class="compared">'
        f"<thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>\n"
        f'<p class="soft">{counts}{escape(random_row(report))}</p>\n'
        f"<details><summary>What the controls are</summary><ul>{legend}</ul></details>\n"
    )


def _groups(report: Mapping[str, Any]) -> str:
    by_group = report.get("groups", {}).get("rows", {})
    if not by_group:
        return ""
    columns = list(next(iter(by_group.values())))
    head = "".join(f'<th scope="col">{escape(word(name))}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td data-name="{escape(word(c))}"><span>{_cell(row.get(c))}</span></td>' for c in columns)
        + "</tr>"
        for name, row in by_group.items()
    )
    return (
        f'<h3>By {escape(report["groups"]["by"])}</h3>\n<div class="wide"><table class="compared">'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>\n"
    )


def _certificate(report: Mapping[str, Any]) -> str:
    bound, reason = report["metrics"].get("certified_bound"), report.get("choice", "")
    if bound is None and not reason:
        return ""
    certified = "" if bound is None else f"<p>{_certified(bound)}</p>"
    return f"<h3>Why this strength</h3>\n{certified}<p>{escape(reason)}</p>\n"


def _certified(bound: Mapping[str, Any]) -> str:
    if bound["value"] is None or not bound["value"] > 0:
        return "No improvement is certified."
    on_average = "" if bound["high"] is None else " on average"  # over repetitions; one run's bound has no upper end
    bound_text, clusters = cell(bound) if on_average else number(bound["value"]), bound.get("clusters")
    if clusters:
        unit = f"the mean over {clusters:,.0f} clusters, each counting once,"
        return f"Certified{on_average}: {unit} improves by more than {bound_text}."
    return f"Certified{on_average}: an improvement of more than {bound_text}."


def _texts(report: Mapping[str, Any]) -> str:
    if not report.get("texts"):
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in TEXTS)
    body = "".join(
        "<tr>" + "".join(f'<td data-name="{name}"><span>{escape(row[name])}</span></td>' for name in TEXTS) + "</tr>"
        for row in report["texts"]
    )
    return (
        '<h3>Text at held-out prompts</h3>\n<div class="wide"><table class="compared texts">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n"
    )


def _rest(report: Mapping[str, Any]) -> str:
    columns = report.get("baselines", {}).get("baseline", {})
    other_metrics = {name: estimate for name, estimate in report["metrics"].items() if name not in columns}
    entries = "".join(
        f'<div><dt>{escape(word(name))}</dt><dd>{cell(e)} <span class="soft">n = {_count(e["n"])}</span></dd></div>'
        for name, e in other_metrics.items()
    )
    notes = [f"Intervals: {report['intervals']}."] if report.get("intervals") else []
    how = "".join(f'<p class="soft">{escape(note)}</p>\n' for note in [*notes, *footnotes(report)])
    return f'<h3>Further figures</h3>\n<dl class="figures">{entries}</dl>\n{how}' if entries else how


def _origin(report: Mapping[str, Any], configuration: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.get("versions", {}).items())
    facts = {
        "experiment": report["experiment"],
        "network": report["backbone"],
        "seed": str(report["seed"]),
        "versions": versions,
    }
    entries = "".join(f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items() if text)
    full = (
        f"<details><summary>Full configuration</summary><pre>{escape(configuration)}</pre></details>"
        if configuration
        else ""
    )
    return f"<h3>Configuration and versions</h3>\n<dl>{entries}</dl>\n{full}\n"


def _cell(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return "-"
    value, _, interval = cell(estimate).partition(" ")
    return f"{value}<small>{interval}</small>"


def _count(n: float | None) -> str:
    return "-" if n is None else f"{n:,.0f}"
