"""Figures of one run, from the numbers of its report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_steer.report.svg import COLOURS

DASHES = ("solid", (0, (4, 3)), (0, (1, 2)), (0, (6, 3)), "dashed", "dotted", "dashdot")
"""A dash pattern for each colour; earlier lines show through the gaps of later ones."""
DAMAGE = "reference_kl"
"""Measure of the damage curve."""
RANDOM = "range of {} random directions, equal shift"
NAMES = {
    "target_accuracy": "target reads the intended value",
    "target_unchanged": "target still reads its old value",
    "off_target_accuracy": "other attributes right",
    "exact_match": "everything right",
    "intended_preferred": "intended continuation likelier",
    "drift_kl": "drift of the others, KL (nats)",
    "drift_flip": "others whose reading changed",
}


def bands(axes: Axes, curve: Mapping[str, Any], measures: Sequence[str]) -> None:
    """Draw a line with its interval for each measure; where lines coincide, one shows between the next one's dashes."""
    for measure, colour, dashes in zip(measures, COLOURS, DASHES, strict=False):
        values = curve[measure]
        style = {"linestyle": dashes, "marker": "o", "markersize": 3, "color": colour}
        axes.plot(curve["x"], values["value"], label=NAMES.get(measure, measure), **style)
        axes.fill_between(curve["x"], values["low"], values["high"], alpha=0.2, color=colour, linewidth=0)


def below(figure: Figure, *axes: Axes) -> None:
    """Put the legend below the axes, with each label once."""
    legends = [panel.get_legend_handles_labels() for panel in axes]
    handles, labels = (
        [handle for group, _ in legends for handle in group],
        [label for _, group in legends for label in group],
    )
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(list(unique.values()), list(unique), loc="outside lower center", ncols=2, fontsize=8, frameon=False)


def dose_response(report: Mapping[str, Any], measures: Sequence[str]) -> Figure:
    """Plot measures against strength with the range of random directions, damage below; the choice is marked."""
    curves, chosen = report["curves"], report["metrics"]["strength"]["value"]
    damage = curves.get("damage", {}).get(DAMAGE)
    figure, axes = _figure(f"Dose-response, {report['method']}", 2 if damage else 1)
    bands(axes[0], curves["strength"], measures)
    if "random" in curves and len(measures) == 1:  # several bands would hide each other
        random = curves["random"]
        ends = random[measures[0]]
        axes[0].fill_between(
            random["x"],
            ends["low"],
            ends["high"],
            color="grey",
            alpha=0.3,
            linewidth=0,
            label=RANDOM.format(report.get("random_curve", "some")),
        )
    axes[0].set_ylabel(report["dose_response"]["unit"])
    if damage:
        axes[1].plot(curves["damage"]["x"], damage["value"], color="black", marker="o", markersize=3)
        axes[1].set_ylabel("KL on reference texts,\nnats per token")
        if "budget" in report:
            axes[1].axhline(report["budget"], color=COLOURS[1], linestyle="--", label="budget")
    for panel in axes:
        panel.axvline(chosen, color="grey", linestyle=":", label="chosen strength")
    axes[-1].set_xlabel("strength")
    below(figure, *axes)
    return figure


def side_by_side(reports: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Plot the dose-response of one method on several networks, with a titled panel for each."""
    figure = Figure(figsize=(4.8 * len(reports), 4.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(reports), sharey=True))
    for axes, (title, report) in zip(panels, reports.items(), strict=True):
        curve = report["curves"]["strength"]
        bands(axes, curve, report["dose_response"]["measures"])
        axes.axvline(report["metrics"]["strength"]["value"], color="grey", linestyle=":", label="chosen strength")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("strength")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(next(iter(reports.values()))["dose_response"]["unit"])
    below(figure, panels[0])
    return figure


def drift(report: Mapping[str, Any]) -> Figure:
    """Plot the off-target drift of every attribute, without the targets."""
    figure, (axes,) = _figure(f"Off-target drift by attribute, {report['method']}")
    profile = report["profile"]["kl"]
    value, low, high = (np.array(profile[key], dtype=float) for key in ("value", "low", "high"))
    index = np.arange(len(value))
    axes.bar(index, value, color=COLOURS[0])
    has_value = np.isfinite(value)
    spread = np.stack([value - low, high - value])[:, has_value].clip(0)
    axes.errorbar(index[has_value], value[has_value], spread, fmt="none", ecolor="black", elinewidth=0.6)
    for target in index[~has_value]:
        axes.axvspan(target - 0.5, target + 0.5, color=COLOURS[1], alpha=0.3, label="target")
    axes.set(xlabel="attribute", ylabel="KL(unsteered || steered), nats")
    if not has_value.all():
        below(figure, axes)
    return figure


def by_pairs(report: Mapping[str, Any], measures: Sequence[str]) -> Figure:
    """Plot measures against the number of pairs that the method was fitted to."""
    figure, (axes,) = _figure(f"Accuracy by number of pairs, {report['method']}")
    curve = report["curves"]["pairs"]
    bands(axes, curve, measures)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="pairs fitted", ylabel=report["dose_response"]["unit"])
    below(figure, axes)
    return figure


def all_of(report: Mapping[str, Any]) -> dict[str, Figure]:
    """Return all figures that the report has numbers for, by file name."""
    measures = report["dose_response"]["measures"]
    figures = {"dose_response": dose_response(report, measures)}
    if "kl" in report["profile"]:
        figures["drift"] = drift(report)
    if "pairs" in report["curves"]:
        figures["pairs"] = by_pairs(report, measures)
    return figures


def _figure(title: str, panels: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(6, 2.6 + 1.8 * panels), layout="constrained")
    heights = [2.0, *[1.0] * (panels - 1)]
    axes = list(np.atleast_1d(figure.subplots(panels, 1, sharex=True, height_ratios=heights)))
    axes[0].set_title(title, fontsize=10)
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes
