"""The fidelity study's tables and their sentences; every sentence is computed from the numbers.

One file: each sentence is beside the table that it summarises.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_steer.markdown import table
from lightning_steer.report.tables import number
from lightning_steer.studies.fidelity.cells import (
    RANDOM,
    above,
    as_cell,
    footnote,
    of_part,
    of_report,
    random_cells,
    reported_random_cells,
)
from lightning_steer.studies.fidelity.overview import overview

Parts = Mapping[str, dict[str, Any]]
LENGTH = "vector as long as base's"
HEADLINE = ("p_stereotype", "p_anti", "p_unrelated", "intended", "collateral", "fidelity", "ss", "lms", "icat")


def ordered(results: Parts, prefix: str) -> dict[str, list[dict[str, Any]]]:
    """Return the parts of one kind of work by bias type; arms are in the order in which they were run."""
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, part in results.items():
        if name.startswith(f"{prefix}-"):
            by_kind[part["kind"]].append(part)
    return dict(by_kind)


def text(results: Parts, figures: Sequence[str], leading: str = "") -> str:
    """Return the page as Markdown; ``leading`` holds the declarations and their verdicts."""
    sections = [
        "# Intervention fidelity in the pocket models\n",
        leading,
        "## Exploratory\n" if leading else "",
        "Everything below is on the examples of seed 0, looked at before anything was declared.\n",
        "Values stand before their 95 % intervals over target terms (behaviours: over topics; neutral text: over "
        "texts). No correction is made for the number of cells: of many true nulls, one in twenty is marked. "
        f"{RANDOM}\n",
        overview(results),
        runs(results),
        pattern(results),
        causes(results),
        planted(results),
        methods(results),
        likelihood(results),
        *(f"![{name}]({name}.png)\n" for name in figures),
    ]
    return "\n".join(section for section in sections if section)


def runs(results: Parts) -> str:
    """Return the table of runs: chosen on other terms, judged on held-out ones."""
    by_run = {name.removeprefix("run-"): part for name, part in results.items() if name.startswith("run-")}
    if not by_run:
        return ""
    draws = next(iter(by_run.values()))["baselines"]["random_control"]["fidelity"]["n"]
    random = f"fidelity, {draws} random directions: median (range)"
    head = ["run", "layer", "strength", *HEADLINE, "reference_kl", random, "rank p of fidelity"]
    held_out, reference = [], []
    rows = []
    for name, part in by_run.items():
        metrics, chance = part["metrics"], reported_random_cells(part["baselines"]["random_control"]["fidelity"])
        columns = [of_report(metrics[m]) for m in (*HEADLINE, "reference_kl")]
        held_out += columns[:-1]
        reference.append(columns[-1])
        setting = [f"{metrics['layer']['value']:.0f}", f"{metrics['strength']['value']:g}"]
        rows.append([name, *setting, *map(as_cell, columns), *chance])
    lines = ["## Runs: layer and strength chosen on other terms\n", *table(head, rows)]
    return "\n".join(lines) + "\n" + footnote(held_out) + footnote(reference, "neutral texts (reference_kl)")


def pattern(results: Parts) -> str:
    """Return the table that shows whether unrelated sentences are suppressed more than stereotypes."""
    sweeps = [part for parts in ordered(results, "sweep").values() for part in parts]
    if not sweeps:
        return ""
    count = len(sweeps[0]["random"][str(sweeps[0]["layers"][0])]["suppress"]["pattern_shares"])
    lines = [
        "## Is what is unrelated suppressed more than stereotypes?\n",
        "At strength 1. Shares: change of choosing the stereotype less that of choosing the unrelated sentence; nats: "
        f"the same of the log-probabilities per token. Above 0 is the published pattern. `random`: the median of "
        f"{count} random directions, and in brackets the least and the largest of them.\n",
        "| arm | bias type | layer | shares | random | rank p | nats | random | rank p |",
        f"|{'---|' * 9}",
    ]
    estimates = []
    counts: dict[str, list[int]] = {}
    for part in sweeps:
        for layer in part["layers"]:
            key, i = str(layer), part["strengths"].index(1.0)
            row = []
            counted = counts.setdefault(part["arm"], [0, 0, 0])
            counted[2] += 1
            for index, measure in enumerate(("pattern_shares", "pattern_nats")):
                estimate = of_part(part["steered"][key][measure][i])
                positive = [c for c in part["strengths"] if c > 0].index(1.0)
                draws = [draw[positive] for draw in part["random"][key]["suppress"][measure]]
                counted[index] += above(estimate, max(0, *draws))
                row += [as_cell(estimate), *random_cells(draws, estimate.value)]
                estimates.append(estimate)
            lines.append(f"| {part['arm']} | {part['kind']} | {layer} | {' | '.join(row)} |")
    lines += [
        footnote(estimates),
        f"The pattern counts as seen where the whole interval lies above 0 and above the largest of the {count} random "
        f"directions; the rank p-value is then at its least, 1 / {count + 1}.\n",
    ]
    for arm, (by_share, by_nats, cells) in counts.items():
        lines.append(f"- {arm}: seen in {by_share} of {cells} cells by shares and in {by_nats} of {cells} by nats.")
    return "\n".join(lines) + "\n"


def causes(results: Parts) -> str:
    """Return the tables on what anisotropy explains."""
    part = results.get("anisotropy")
    if part is None:
        return ""
    models = list(part["anisotropy"])
    measures = list(next(iter(part["anisotropy"][models[0]].values())))
    lines = [
        "## Does anisotropy explain it?\n",
        "Residual stream at every token but the first of the fitted sentences and of neutral text.\n",
        f"| model | layer | {' | '.join(measures)} |",
        f"|---|---|{'---|' * len(measures)}",
    ]
    estimates = []
    for model, layers in part["anisotropy"].items():
        for k, figures in layers.items():
            columns = [of_part(figures[m]) for m in measures]
            estimates += columns
            lines.append(f"| {model} | {k} | {' | '.join(map(as_cell, columns))} |")
    lines += [
        footnote(estimates, "tokens", "groups of texts"),
        "The causal test: base model's fidelity less the other's with plain steering, and how much of that "
        "difference goes away without the common mean or the top component, or with a vector as long as the base "
        "model's (positive: explained). Both bias types.\n",
        "| model/layer/strength | gap of fidelity | "
        + " | ".join(v for v in _variants(part))
        + " | gap of pattern, nats | "
        + " | ".join(v for v in _variants(part))
        + " |",
        f"|---|{'---|' * (2 + 2 * len(_variants(part)))}",
    ]
    removed = [v for v in _variants(part) if v.endswith(("without mean", "without top"))]
    lower, closed, length, widest, estimates = 0, 0, 0, 0, []
    for setting, figures in part["gaps"].items():
        row = []
        for measure in ("fidelity", "pattern_nats"):
            row.append(of_part(figures[measure]["gap"]["plain"]))
            row += [of_part(figures[measure]["explained"][v]) for v in _variants(part)]
        gap, explained = (
            {v: of_part(e) for v, e in figures["fidelity"][name].items()} for name in ("gap", "explained")
        )
        if above(gap["plain"], 0):
            lower += 1
            closed += sum(above(explained[v], 0) for v in removed)
            length += above(explained[LENGTH], 0)
            widest += above(gap[LENGTH], 0)
        estimates += row
        lines.append(f"| {setting} | {' | '.join(map(as_cell, row))} |")
    lines.append(footnote(estimates) + "\n" + _explained(lower, len(part["gaps"]), closed, lower * len(removed)))
    if lower:
        lines.append(
            f"With the fine-tuned model's own vector made as long as the base model's, the difference shrinks beyond "
            f"chance in {length} of these {lower} cells, and is still there beyond chance in {widest}."
        )
    return "\n".join(lines) + "\n"


def _explained(lower: int, cells: int, closed: int, intervals: int) -> str:
    """State in words whether anisotropy explains the gap."""
    if not lower:
        return f"In none of {cells} cells is a fine-tuned model's fidelity lower than the base model's, beyond chance."
    by_chance = 0.05 * intervals  # cells with a gap beyond chance are selected by the same noise
    answer = (
        "That is no more than chance would give: nothing shows that anisotropy explains the difference, and intervals "
        "as wide as the gaps exclude little."
        if closed <= by_chance + 2 * by_chance**0.5
        else "That is more than chance would give: anisotropy explains some of the difference here."
    )
    return (
        f"A fine-tuned model's fidelity is lower than the base model's, beyond chance, in {lower} of {cells} cells. In "
        f"these, {closed} of {intervals} ways of taking the mean or the top component away close some of the gap, with "
        f"an interval above 0; about {by_chance:.1f} would by chance. {answer}"
    )


def _variants(part: Mapping[str, Any]) -> list[str]:
    return list(next(iter(part["gaps"].values()))["fidelity"]["explained"]) if part["gaps"] else []


def planted(results: Parts) -> str:
    """Return the tables of reported and true figures."""
    parts = [part for name, part in results.items() if name.startswith("truth-")]
    if not parts:
        return ""
    inside, total, estimates = defaultdict(int), defaultdict(int), []
    lines = [
        "## Reported and true\n",
        "Reported: one sentence for each target and pair of words, with its interval. True: all held-out sentences "
        "around the same targets, all unrelated words. `share` is P(stereotype | stereotype or opposite).\n",
        "| arm | bias type | strength | change of share, reported | true | mass of stereotypes, true |",
        "|---|---|---|---|---|---|",
    ]
    for part in parts:
        for i, figure in enumerate(part["compared"]["share_change"]):
            mass = part["mass"]["mass_stereotype"][i]
            estimates.append(of_part(figure["reported"]))
            lines.append(
                f"| {part['arm']} | {part['kind']} | {figure['strength']:g} | {as_cell(estimates[-1])} | "
                f"{number(figure['true'])} | {number(mass)} |"
            )
        for measure, cells in part["compared"].items():
            for figure in cells:
                if figure["inside"] is not None:
                    inside[measure] += figure["inside"]
                    total[measure] += 1
    lines.append(footnote(estimates))
    lines.append(
        "Intervals that hold the true value: " + ", ".join(f"{m} {inside[m]} of {total[m]}" for m in total) + ".\n"
    )
    tones = [(part, name, figure) for part in parts for name, figure in part["tone"].items()]
    if tones:
        lines += [
            "A change that the language makes by itself, with the same measure: from a neutral opener to a harsh or "
            "mild one.\n",
            "| model | bias type | opener | reported | planted | held |",
            "|---|---|---|---|---|---|",
        ]
        for part, name, figure in tones:
            answer = {True: "yes", False: "no", None: "-"}[figure["inside"]]
            lines.append(
                f"| {part['arm']} | {part['kind']} | {name} | {as_cell(of_part(figure['reported']))} | "
                f"{number(figure['true'])} | {answer} |"
            )
        lines.append(footnote(of_part(figure["reported"]) for *_, figure in tones))
    return "\n".join(lines) + "\n"


def methods(results: Parts) -> str:
    """Return the table of methods at equal effect and at equal KL."""
    parts = [part for by_kind in ordered(results, "methods").values() for part in by_kind]
    if not parts:
        return ""
    lines = [
        "## Methods at equal effect (10 % of the examples moved as meant) and at equal KL (0.01 nats)\n",
        "| arm | bias type | method | collateral at equal effect | KL at equal effect | intended at equal KL | "
        "fidelity at equal KL | rank p of fidelity |",
        f"|{'---|' * 8}",
    ]
    estimates = []
    for part in parts:
        random = [result for name, result in part["methods"].items() if name.startswith("random")]
        drawn = [result["equal KL"]["fidelity"][0] for result in random if "equal KL" in result]
        for name, result in part["methods"].items():
            effect, drift = result.get("equal effect"), result.get("equal KL")
            if not name.startswith("random"):
                cells = [of_part(effect["collateral"])] if effect else []
                cells += [of_part(drift["intended"]), of_part(drift["fidelity"])] if drift else []
                estimates += cells
                row = [
                    as_cell(cells[0]) if effect else "not reached",
                    number(effect["kl"]) if effect else "-",
                    *(map(as_cell, cells[-2:]) if drift else ("not reached", "-")),
                    random_cells(drawn, cells[-1].value)[1] if drift and drawn else "-",
                ]
                lines.append(f"| {part['arm']} | {part['kind']} | {name} | {' | '.join(row)} |")
        reached = [result["equal effect"]["kl"] for result in random if "equal effect" in result]
        ends = f"{random_cells(drawn, 0.0)[0]} of the {len(drawn)} that reach it" if drawn else "-"
        lines.append(
            f"| {part['arm']} | {part['kind']} | random, {len(random)} draws | reached by {len(reached)} | "
            f"{number(min(reached)) + ' and more' if reached else '-'} | - | {ends} | - |"
        )
    return "\n".join(lines) + "\n" + footnote(estimates)


def likelihood(results: Parts) -> str:
    """Return the paper's table, with measures that need no normaliser."""
    parts = [part for name, part in results.items() if name.startswith("behaviour-")]
    if not parts:
        return ""
    lines = [
        "## Behaviours: the paper's table (first quarter, all prompts) and what needs no normaliser\n",
        "| model | behaviour | strength | promotion, 25 % | suppression, 25 % | promotion, all | suppression, all | "
        "margin change | preference | AUC | Cohen's d | positives | negatives |",
        f"|{'---|' * 13}",
    ]
    estimates = []
    for part in parts:
        form = f"{part['model']}, chat" if part["chat"] else part["model"]
        by_label = {f"strength {c}": result for c, result in part["shown"].items()}
        if "as_a_method" in part:
            by_label["tuned against base"] = part["as_a_method"]
        for label, result in by_label.items():
            columns = [of_part(c) for quarter in (result["table"][0], result["table"][-1]) for c in quarter]
            names = ("margin_change", "preference", "auc", "cohens_d", "positive_change", "negative_change")
            columns += [of_part(result["estimates"][name]) for name in names]
            estimates += columns
            lines.append(f"| {form} | {part['behaviour']} | {label} | {' | '.join(map(as_cell, columns))} |")
    return "\n".join(lines) + "\n" + footnote(estimates, "prompts", "topics")
