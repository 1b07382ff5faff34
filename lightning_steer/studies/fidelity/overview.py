"""Overview tables of the fidelity study: suppressed stereotypes and promoted behaviours."""

from collections.abc import Mapping
from typing import Any

from lightning_steer.markdown import table
from lightning_steer.report.tables import number
from lightning_steer.studies.fidelity.cells import (
    as_cell,
    footnote,
    of_part,
    of_report,
    random_cells,
    reported_random_cells,
)

Parts = Mapping[str, dict[str, Any]]


def overview(results: Parts) -> str:
    """Return both overview tables as Markdown; empty if nothing was run."""
    tables = [table for table in (stereotypes(results), behaviours(results)) if table]
    return "\n".join(["## At a glance\n", *tables]) if tables else ""


def stereotypes(results: Parts) -> str:
    """Return the table of runs that suppress stereotypes; layer and strength were chosen on other terms."""
    runs = {name: part for name, part in results.items() if name.startswith("run-") and name.endswith("-suppress")}
    if not runs:
        return ""
    columns = "stereotypes suppressed, bias type, layer and strength, stereotype chosen, opposite, unrelated, fidelity"
    draws = next(iter(runs.values()))["baselines"]["random_control"]["fidelity"]["n"]
    head = [*columns.split(", "), f"{draws} random directions: median (range)", "rank p", "KL on neutral text"]
    estimates, rows = [], []
    for name, part in runs.items():
        metrics, before = part["metrics"], part["baselines"]["baseline"]
        arm, _, kind = name.removeprefix("run-").removesuffix("-suppress").rpartition("-")
        moved = [
            f"{before[share]['value']:.2f} -> {metrics[share]['value']:.2f} "
            f"[{metrics[share]['low']:.2f}, {metrics[share]['high']:.2f}]"
            for share in ("p_stereotype", "p_anti", "p_unrelated")
        ]
        estimates += [of_report(metrics[name]) for name in ("p_stereotype", "p_anti", "p_unrelated", "fidelity")]
        row = [
            arm.replace("-", ", ").replace("_", " "),
            kind,
            f"{metrics['layer']['value']:.0f}, {metrics['strength']['value']:g}",
            *moved,
            as_cell(of_report(metrics["fidelity"])),
            *reported_random_cells(part["baselines"]["random_control"]["fidelity"]),
            number(metrics["reference_kl"]["value"]),
        ]
        rows.append(row)
    return "\n".join(table(head, rows)) + "\n" + footnote(estimates, "held-out examples")


def behaviours(results: Parts) -> str:
    """Return the table of behaviours in plain text at strength 1 in the middle layer, with fine-tuning as a method."""
    all_parts = (part for name, part in results.items() if name.startswith("behaviour-"))
    parts = [part for part in all_parts if not part["chat"] and part["model"] in ("base", "tuned")]
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
    head[3:3] = [f"the same, {len(parts[0]['random']['margin_change'])} random directions: median (range)", "rank p"]
    estimates, rows = [], []
    for part in parts:
        method, control = f"{part['model']}, strength 1", f"{part['model']}, instead of base"
        shown = {method: part["shown"].get("1"), control: part.get("as_a_method")}
        for label, result in shown.items():
            if result is not None:
                columns = [of_part(result["estimates"][name]) for name in names]
                estimates += columns
                values = [as_cell(estimate) for estimate in columns]
                values[1:1] = by_chance(part, columns[0].value) if label == method else ["-", "-"]
                rows.append([label, part["behaviour"], *values])
    return "\n".join(table(head, rows)) + "\n" + footnote(estimates, "held-out prompts", "topics")


def by_chance(part: Mapping[str, Any], value: float) -> list[str]:
    """Return the effect of equally long random directions on the margin at strength 1, and the vector's rank p."""
    position = [strength for strength in part["strengths"] if strength > 0].index(1)
    return random_cells([draw[position] for draw in part["random"]["margin_change"]], value)
