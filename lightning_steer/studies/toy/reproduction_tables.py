"""The toy study's second half: the report's own network, and the law of half effect, as tables and figures."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lightning_steer.report.figures import COLOURS, below
from lightning_steer.studies.toy.intervals import MEANING, over_networks


def table(results: dict[str, Any]) -> str:
    """Return the table of the report's question, with and without the by-pass."""
    lines = ["### The report's network", "", "| | without by-pass | with the residual by projection |", "|---|---|---|"]
    no_bypass, projection = results["vectors-none"], results.get("vectors-projection")

    def row(title: str, key: str) -> None:
        cells = [over_networks(part[key], 3) if part else "-" for part in (no_bypass, projection)]
        lines.append(f"| {title} | {' | '.join(cells)} |")

    row("clean attribute accuracy", "clean_accuracy")
    row("clean exact match", "clean_exact")
    row("by-pass score", "bypass")
    row("oracle patch, exact", "oracle_patch")
    row("mean difference, 64 pairs, strength chosen inside them: exact, mean", "exact_64_pairs")
    values = [np.asarray(part["exact_64_pairs"]) if part else np.array([np.nan]) for part in (no_bypass, projection)]
    lines.append(f"| the same, median attribute | {' | '.join(f'{np.median(v):.3f}' for v in values)} |")
    lines.append(f"| the same, worst attribute | {' | '.join(f'{v.min():.3f}' for v in values)} |")
    row("mean difference, 2,048 pairs: exact", "exact_2048_pairs")
    row("told the old value, 2,048 pairs: exact", "told_old_value")
    for rows in ("held-out negatives", "training negatives"):
        cells = [
            f"{np.asarray(part['target_at_low_strength'][rows]).max():.3f}" if part else "-"
            for part in (no_bypass, projection)
        ]
        lines.append(f"| target at strengths up to 2, {rows}, largest of all | {' | '.join(cells)} |")
    for method, values in results.get("trained-projection", {}).items():
        if method != "settings":
            lines.append(f"| {method}, 64 pairs: exact | - | {over_networks(values, 3)} |")
    shape = np.asarray(no_bypass["exact_64_pairs"]).shape
    failing = [
        f"network {i}, attribute {a} (exact {no_bypass['exact_64_pairs'][i][t]:.2f}; 2,048 pairs "
        f"{no_bypass['exact_2048_pairs'][i][t]:.2f}; told the old value {no_bypass['told_old_value'][i][t]:.2f})"
        for i, targets in enumerate(no_bypass["attributes"])
        for t, a in enumerate(targets)
        if no_bypass["exact_64_pairs"][i][t] < 0.9
    ]
    lines += ["", f"{shape[0]} networks x {shape[1]} attributes. {MEANING}", ""]
    lines.append("Attributes without by-pass that stay below .90 at 64 pairs: " + ("; ".join(failing) or "none") + ".")
    return "\n".join(lines) + "\n"


def attributes(part: dict[str, Any]) -> Figure:
    """Plot every attribute, sorted: the score of a vector, and what knowing the old value adds."""
    figure = Figure(figsize=(6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    order = np.argsort(np.asarray(part["exact_64_pairs"]).ravel())
    for key, label, colour in (
        ("exact_64_pairs", "mean difference, 64 pairs", COLOURS[0]),
        ("exact_2048_pairs", "mean difference, 2,048 pairs", COLOURS[5]),
        ("told_old_value", "told the old value, 2,048 pairs", COLOURS[2]),
        ("oracle_patch", "oracle patch", COLOURS[6]),
    ):
        axes.plot(np.asarray(part[key]).ravel()[order], marker=".", linestyle="none", color=colour, label=label)
    axes.set(xlabel="attribute of a network, sorted", ylabel="exact match", ylim=(-0.03, 1.03))
    axes.spines[["top", "right"]].set_visible(False)
    below(figure, axes)
    return figure


def law_points(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a point for each number of values and residual: medians over networks and attributes."""
    points = []
    for name, part in results.items():
        if name.startswith("law-"):
            _, values, residual = name.split("-")
            k = int(values)
            measured = np.array([math.inf if h is None else h for row in part["half"] for h in row])
            rho, alpha = (np.array(part[key], dtype=float).ravel() for key in ("bypass", "alpha"))
            share_through = np.maximum(1 - rho, 1e-3)
            law, geometric = (k - 1) / k / share_through, 0.5 / alpha / share_through
            points.append(
                {
                    "values": k,
                    "residual": residual,
                    "rho": float(np.median(rho)),
                    "alpha": float(np.median(alpha)),
                    "ideal_alpha": k / (2 * (k - 1)),
                    "half": float(np.median(measured)),
                    "reached": float(np.isfinite(measured).mean()),
                    "law": float(np.median(law)),
                    "geometric": float(np.median(geometric)),
                    "law_error": float(np.median(law / measured)) - 1,
                    "geometric_error": float(np.median(geometric / measured)) - 1,
                    "targets": {"half": measured, "law": law, "geometric": geometric},
                    "clean": float(np.mean(part["clean_exact"])),
                    "n": len(measured),
                }
            )
    return sorted(points, key=lambda p: (p["values"], p["rho"]))


def law_table(points: list[dict[str, Any]]) -> str:
    """Return the table of measured and predicted strengths."""
    lines = [
        "### How strong a vector must be",
        "",
        "Strength at which half of a target's rows read the wanted value (infinite if none below 40 is enough), "
        "against (K-1)/K / (1-rho) and 1/2 / alpha / (1-rho) with the target's own rho and alpha. Medians over "
        "networks and targets; errors are medians of predicted / measured - 1, with 0 for a target that never gets "
        "there. "
        "Near-orthogonal: alpha within 15 % of its ideal K / (2(K-1)).",
        "",
        "| K | residual | clean exact | rho | alpha (ideal) | measured | reached | law | error | geometric | error |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for p in points:
        law_error, geometric_error = (
            f"{100 * p[key]:+.0f} %" if p["reached"] > 0.5 else "-" for key in ("law_error", "geometric_error")
        )
        within = p["rho"] <= 0.4 and abs(p["alpha"] / p["ideal_alpha"] - 1) <= 0.15
        cells = [
            f"{p['values']}",
            p["residual"],
            f"{p['clean']:.3f}",
            f"{p['rho']:.2f}",
            f"{p['alpha']:.2f} ({p['ideal_alpha']:.2f}){', near-orthogonal' if within else ''}",
            f"{p['half']:.2f}",
            f"{p['reached']:.0%} of {p['n']}",
            f"{p['law']:.2f}",
            law_error,
            f"{p['geometric']:.2f}",
            geometric_error,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def law(points: list[dict[str, Any]]) -> Figure:
    """Plot predicted against measured half-effect strength."""
    figure = Figure(figsize=(5.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    measured = np.concatenate([p["targets"]["half"] for p in points])
    for key, label, marker, colour in (
        ("law", "(K-1)/K / (1-rho)", "o", COLOURS[1]),
        ("geometric", "1/2 / alpha / (1-rho)", "^", COLOURS[0]),
    ):
        predicted = np.concatenate([p["targets"][key] for p in points])
        axes.scatter(measured, predicted, marker=marker, color=colour, label=label, s=10, alpha=0.6)
    ends = [0.4, 40]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.fill_between(
        ends, [0.8 * e for e in ends], [1.2 * e for e in ends], color="grey", alpha=0.2, label="within 20 %"
    )
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axes.set(xlabel="measured strength of half effect, a point for each target", ylabel="predicted")
    below(figure, axes)
    return figure
