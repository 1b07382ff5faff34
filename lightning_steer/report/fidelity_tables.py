"""The fidelity study's tables, and what they say in words; every sentence is read off the numbers.

One file: the sentences stand beside the tables that they are read off.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_steer.report.fidelity_glance import glance
from lightning_steer.report.tables import cell, number

Parts = Mapping[str, dict[str, Any]]
LENGTH = "vector as long as base's"
HEADLINE = ("p_stereotype", "p_anti", "p_unrelated", "intended", "collateral", "fidelity", "ss", "lms", "icat")


def ordered(found: Parts, prefix: str) -> dict[str, list[dict[str, Any]]]:
    """Parts of one kind of work by bias type, arms in the order in which they were run."""
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, part in found.items():
        if name.startswith(f"{prefix}-"):
            by_kind[part["kind"]].append(part)
    return dict(by_kind)


def text(found: Parts, figures: Sequence[str]) -> str:
    """The whole page."""
    sections = [
        "# Intervention fidelity in the pocket models\n",
        "Values stand before their 95 % intervals over target terms (behaviours: over topics; neutral text: over "
        "texts). No correction is made for the number of cells: of many true nulls, one in twenty is marked. Random "
        "directions are as long as the vector they stand beside.\n",
        glance(found),
        runs(found),
        pattern(found),
        causes(found),
        planted(found),
        methods(found),
        likelihood(found),
        *(f"![{name}]({name}.png)\n" for name in figures),
    ]
    return "\n".join(part for part in sections if part)


def _estimate(interval: Sequence[float | None]) -> dict[str, float | None]:
    return dict(zip(("value", "low", "high"), interval, strict=True))


def _cell(interval: Sequence[float | None]) -> str:
    return cell(_estimate(interval))


def runs(found: Parts) -> str:
    """One line a run: chosen on other terms, judged on held-out ones."""
    chosen = {name.removeprefix("run-"): part for name, part in found.items() if name.startswith("run-")}
    if not chosen:
        return ""
    head = ["run", "layer", "strength", *HEADLINE, "neutral_kl", "fidelity, random (95 %)"]
    lines = ["## Runs: layer and strength chosen on other terms\n", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, part in chosen.items():
        metrics, random = part["metrics"], part["baselines"]["random"]["fidelity"]
        values = [cell(metrics[m]) for m in (*HEADLINE, "neutral_kl")]
        chance = f"{number(random['low'])} to {number(random['high'])}"
        place = [f"{metrics['layer']['value']:.0f}", f"{metrics['strength']['value']:g}"]
        lines.append(f"| {' | '.join([name, *place, *values, chance])} |")
    return "\n".join(lines) + "\n"


def pattern(found: Parts) -> str:
    """Is the unrelated sentence suppressed more than the stereotype?"""
    sweeps = [part for parts in ordered(found, "sweep").values() for part in parts]
    if not sweeps:
        return ""
    lines = [
        "## Is what is unrelated suppressed more than stereotypes?\n",
        "At strength 1. Shares: change of choosing the stereotype less that of choosing the unrelated sentence; nats: "
        "the same of the log-probabilities per token. Above 0 is the published pattern. `random`: where 95 % of the "
        "random directions lie.\n",
        "| arm | bias type | layer | shares | random | nats | random |",
        "|---|---|---|---|---|---|---|",
    ]
    counts: dict[str, list[int]] = {}
    for part in sweeps:
        for layer in part["layers"]:
            key, i = str(layer), part["strengths"].index(1.0)
            row = []
            seen = counts.setdefault(part["arm"], [0, 0, 0])
            seen[2] += 1
            for place, measure in enumerate(("pattern_shares", "pattern_nats")):
                value = part["steered"][key][measure][i]
                positive = [c for c in part["strengths"] if c > 0].index(1.0)
                draws = sorted(draw[positive] for draw in part["random"][key]["suppress"][measure])
                low, high = draws[round(0.025 * (len(draws) - 1))], draws[round(0.975 * (len(draws) - 1))]
                seen[place] += value[1] is not None and value[1] > max(0, high)
                row += [_cell(value), f"{number(low)} to {number(high)}"]
            lines.append(f"| {part['arm']} | {part['kind']} | {layer} | {' | '.join(row)} |")
    lines.append("")
    for arm, (by_share, by_nats, of) in counts.items():
        lines.append(
            f"- {arm}: the pattern stands, above 0 and above what random directions do, in {by_share} of {of} cells by "
            f"shares and in {by_nats} of {of} by nats."
        )
    return "\n".join(lines) + "\n"


def causes(found: Parts) -> str:
    """What anisotropy explains."""
    part = found.get("anisotropy")
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
    for model, layers in part["anisotropy"].items():
        lines += [f"| {model} | {k} | {' | '.join(_cell(one[m]) for m in measures)} |" for k, one in layers.items()]
    lines += [
        "\nThe causal test: base model's fidelity less the other's with plain steering, and how much of that "
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
    lower, closed, length, widest = 0, 0, 0, 0
    for place, one in part["gaps"].items():
        row = []
        for measure in ("fidelity", "pattern_nats"):
            row.append(_cell(one[measure]["gap"]["plain"]))
            row += [_cell(one[measure]["explained"][v]) for v in _variants(part)]
        if one["fidelity"]["gap"]["plain"][1] > 0:
            lower += 1
            closed += sum(one["fidelity"]["explained"][v][1] > 0 for v in removed)
            length += one["fidelity"]["explained"][LENGTH][1] > 0
            widest += one["fidelity"]["gap"][LENGTH][1] > 0
        lines.append(f"| {place} | {' | '.join(row)} |")
    lines.append("\n" + _explained(lower, len(part["gaps"]), closed, lower * len(removed)))
    if lower:
        lines.append(
            f"With the fine-tuned model's own vector made as long as the base model's, the difference shrinks beyond "
            f"chance in {length} of these {lower} cells, and is still there beyond chance in {widest}."
        )
    return "\n".join(lines) + "\n"


def _explained(lower: int, cells: int, closed: int, intervals: int) -> str:
    """The answer in words."""
    if not lower:
        return f"In none of {cells} cells is a fine-tuned model's fidelity lower than the base model's, beyond chance."
    by_chance = 0.025 * intervals
    answer = (
        "That is no more than chance would give: anisotropy does not explain the difference here."
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


def planted(found: Parts) -> str:
    """Reported against true figures."""
    parts = [part for name, part in found.items() if name.startswith("truth-")]
    if not parts:
        return ""
    inside, of = defaultdict(int), defaultdict(int)
    lines = [
        "## Reported and true\n",
        "Reported: one sentence for each target and pair of words, with its interval. True: all held-out sentences "
        "around the same targets, all unrelated words. `share` is P(stereotype | stereotype or opposite).\n",
        "| arm | bias type | strength | change of share, reported | true | mass of stereotypes, true |",
        "|---|---|---|---|---|---|",
    ]
    for part in parts:
        for i, one in enumerate(part["compared"]["share_change"]):
            mass = part["mass"]["mass_stereotype"][i]
            lines.append(
                f"| {part['arm']} | {part['kind']} | {one['strength']:g} | {_cell(one['reported'])} | "
                f"{number(one['true'])} | {number(mass)} |"
            )
        for measure, cells in part["compared"].items():
            for one in cells:
                if one["strength"]:
                    inside[measure] += one["inside"]
                    of[measure] += 1
    lines.append(
        "\nIntervals that hold the true value: " + ", ".join(f"{m} {inside[m]} of {of[m]}" for m in of) + ".\n"
    )
    tones = [(part, name, one) for part in parts for name, one in part["tone"].items()]
    if tones:
        lines += [
            "A change that the language makes by itself, with the same measure: from a neutral opener to a harsh or "
            "mild one.\n",
            "| model | bias type | opener | reported | planted | held |",
            "|---|---|---|---|---|---|",
        ]
        for part, name, one in tones:
            held = "yes" if one["inside"] else "no"
            lines.append(
                f"| {part['arm']} | {part['kind']} | {name} | {_cell(one['reported'])} | {number(one['true'])} | "
                f"{held} |"
            )
    return "\n".join(lines) + "\n"


def methods(found: Parts) -> str:
    """Methods where they do the same."""
    parts = [part for by_kind in ordered(found, "methods").values() for part in by_kind]
    if not parts:
        return ""
    lines = [
        "## Methods at equal effect (10 % of the examples moved as meant) and at equal KL (0.01 nats)\n",
        "| arm | bias type | method | collateral at equal effect | KL at equal effect | intended at equal KL | "
        "fidelity at equal KL |",
        "|---|---|---|---|---|---|---|",
    ]
    for part in parts:
        random = []
        for name, one in part["methods"].items():
            effect, drift = one.get("equal effect"), one.get("equal KL")
            row = [
                _cell(effect["collateral"]) if effect else "not reached",
                number(effect["kl"]) if effect else "-",
                _cell(drift["intended"]) if drift else "not reached",
                _cell(drift["fidelity"]) if drift else "-",
            ]
            if name.startswith("random"):
                random.append((effect, drift))
            else:
                lines.append(f"| {part['arm']} | {part['kind']} | {name} | {' | '.join(row)} |")
        reached = [effect["kl"] for effect, _ in random if effect]
        fidelity = sorted(drift["fidelity"][0] for _, drift in random if drift)
        ends = f"{number(fidelity[0])} to {number(fidelity[-1])}" if fidelity else "-"
        lines.append(
            f"| {part['arm']} | {part['kind']} | random, {len(random)} draws | reached by {len(reached)} | "
            f"{number(min(reached)) + ' and more' if reached else '-'} | - | {ends} |"
        )
    return "\n".join(lines) + "\n"


def likelihood(found: Parts) -> str:
    """The paper's table, and what needs no normaliser."""
    parts = [part for name, part in found.items() if name.startswith("behaviour-")]
    if not parts:
        return ""
    lines = [
        "## Behaviours: the paper's table (first quarter, all prompts) and what needs no normaliser\n",
        "| model | behaviour | strength | promotion, 25 % | suppression, 25 % | promotion, all | suppression, all | "
        "margin change | preference | AUC | Cohen's d | positives | negatives |",
        f"|{'---|' * 13}",
    ]
    for part in parts:
        form = f"{part['model']}, chat" if part["chat"] else part["model"]
        shown = {f"strength {c}": one for c, one in part["shown"].items()}
        if "as_a_method" in part:
            shown["tuned against base"] = part["as_a_method"]
        for label, one in shown.items():
            quarters = [_cell(c) for quarter in (one["table"][0], one["table"][-1]) for c in quarter]
            names = ("margin_change", "preference", "auc", "cohens_d", "positive_change", "negative_change")
            values = [_cell(one["estimates"][name]) for name in names]
            lines.append(f"| {form} | {part['behaviour']} | {label} | {' | '.join([*quarters, *values])} |")
    return "\n".join(lines) + "\n"
