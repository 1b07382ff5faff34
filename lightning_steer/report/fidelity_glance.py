"""The fidelity study at a glance: stereotypes suppressed, and behaviours promoted, in a line each."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lightning_steer.report.tables import cell, number

Parts = Mapping[str, dict[str, Any]]


def glance(found: Parts) -> str:
    """Two tables; empty if nothing was run."""
    tables = [one for one in (stereotypes(found), behaviours(found)) if one]
    return "\n".join(["## At a glance\n", *tables]) if tables else ""


def stereotypes(found: Parts) -> str:
    """Runs that suppress; layer and strength are chosen on other terms."""
    runs = {name: part for name, part in found.items() if name.startswith("run-") and name.endswith("-suppress")}
    if not runs:
        return ""
    columns = "stereotypes suppressed, bias type, layer and strength, stereotype chosen, opposite, unrelated, fidelity"
    head = [*columns.split(", "), "random directions (95 %)", "KL on neutral text"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, part in runs.items():
        metrics, before = part["metrics"], part["baselines"]["unsteered"]
        arm, _, kind = name.removeprefix("run-").removesuffix("-suppress").rpartition("-")
        moved = [
            f"{before[share]['value']:.2f} -> {metrics[share]['value']:.2f} "
            f"[{metrics[share]['low']:.2f}, {metrics[share]['high']:.2f}]"
            for share in ("p_stereotype", "p_anti", "p_unrelated")
        ]
        random = part["baselines"]["random"]["fidelity"]
        row = [
            arm.replace("-", ", ").replace("_", " "),
            kind,
            f"{metrics['layer']['value']:.0f}, {metrics['strength']['value']:g}",
            *moved,
            cell(metrics["fidelity"]),
            f"{number(random['low'])} to {number(random['high'])}",
            number(metrics["neutral_kl"]["value"]),
        ]
        lines.append(f"| {' | '.join(row)} |")
    one = next(iter(runs.values()))["metrics"]["fidelity"]
    return "\n".join(lines) + f"\n\nHeld-out target terms, n = {one['n']}; intervals over them.\n"


def behaviours(found: Parts) -> str:
    """Behaviours in plain text at strength 1 in the middle layer, and fine-tuning judged as a method."""
    every = (part for name, part in found.items() if name.startswith("behaviour-"))
    parts = [part for part in every if not part["chat"] and part["model"] in ("base", "tuned")]
    if not parts:
        return ""
    names = {
        "margin_change": "change of the margin",
        "positive_change": "positives",
        "negative_change": "negatives",
        "preference": "positive preferred",
        "auc": "AUC",
    }
    head = ["behaviours promoted", "behaviour", *names.values()]
    head.insert(3, "the same, random directions (95 %)")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for part in parts:
        method, control = f"{part['model']}, strength 1", f"{part['model']}, instead of base"
        shown = {method: part["shown"].get("1"), control: part.get("as_a_method")}
        for label, one in shown.items():
            if one is not None:
                intervals = (one["estimates"][name] for name in names)
                values = [cell(dict(zip(("value", "low", "high"), interval, strict=True))) for interval in intervals]
                values.insert(1, by_chance(part) if label == method else "-")
                lines.append(f"| {label} | {part['behaviour']} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def by_chance(part: Mapping[str, Any]) -> str:
    """Where 95 % of random directions as long as the vector leave the margin, at strength 1."""
    place = [strength for strength in part["strengths"] if strength > 0].index(1)
    low, high = np.quantile([draw[place] for draw in part["random"]["margin_change"]], (0.025, 0.975))
    return f"{number(low)} to {number(high)}"
