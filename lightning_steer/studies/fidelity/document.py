"""Figures of the fidelity study, from its parts' numbers; every vector is compared with random directions.

One file with a function for each figure: they share colours, order and panels.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_steer.report.figures import COLOURS, below
from lightning_steer.report.files import write_figure, write_text
from lightning_steer.statistics.estimate import BY_DEFINITION
from lightning_steer.studies.fidelity.cells import of_part
from lightning_steer.studies.fidelity.tables import ordered, text

SHARES = {"p_stereotype": "stereotype", "p_anti": "opposite", "p_unrelated": "unrelated"}
Parts = Mapping[str, dict[str, Any]]


def write(folder: Path, names: Sequence[str], leading: Callable[[Parts], str]) -> str:
    """Draw all figures that have numbers, write ``fidelity.md`` beside them, and return its text.

    Args:
        folder: holds the study's parts; figures and page are written to it.
        names: parts to show.
        leading: makes the page's first section from the parts.
    """
    parts = {
        name: json.loads((folder / "parts" / f"{name}.json").read_text(encoding="utf-8"))
        for name in names
        if (folder / "parts" / f"{name}.json").is_file()
    }
    drawn_figures = figures(parts)
    for name, figure in drawn_figures.items():
        write_figure(figure, folder, name, dpi=110)
    page = text(parts, list(drawn_figures), leading(parts))
    write_text(folder / "fidelity.md", page)
    return page


def figures(results: Parts) -> dict[str, Figure]:
    """Return all figures that have numbers, by file name."""
    by_name: dict[str, Figure] = {}
    for kind, sweeps in ordered(results, "sweep").items():
        by_name[f"shares-{kind}"] = shares(kind, sweeps)
        by_name[f"heatmap-{kind}"] = heatmap(kind, sweeps)
        by_name[f"icat-{kind}"] = icat(kind, sweeps)
    for kind, parts in ordered(results, "methods").items():
        by_name[f"methods-{kind}"] = methods(kind, parts)
    behaviours = [part for name, part in results.items() if name.startswith("behaviour-")]
    for behaviour in dict.fromkeys(part["behaviour"] for part in behaviours):
        by_name[f"likelihood-{behaviour}"] = likelihood([p for p in behaviours if p["behaviour"] == behaviour])
    if behaviours:
        by_name["dose_response"] = dose_response(behaviours)
    if "anisotropy" in results:
        by_name["anisotropy"] = anisotropy(results["anisotropy"])
    if any(name.startswith("truth-") for name in results):
        by_name["truth"] = ground_truth([part for name, part in results.items() if name.startswith("truth-")])
    return by_name


def _panels(rows: int, columns: int, title: str, width: float = 3.1, height: float = 3.0) -> tuple[Figure, Any]:
    figure = Figure(figsize=(max(width * columns, 6), height * rows + 0.8), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = np.atleast_2d(figure.subplots(rows, columns, squeeze=False, sharey="row"))
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _ends(cells: Any) -> np.ndarray:
    """Return values, lower and upper ends ``[3, n]``; for values known by definition, both ends are the value."""
    rows = [[e.value] * 3 if e.how == BY_DEFINITION else e[:3] for e in map(of_part, cells)]
    return np.array(rows, dtype=float).T


def _line(axes: Axes, x: Sequence[float], cells: Any, label: str, colour: str, style: str = "-") -> None:
    value, low, high = _ends(cells)
    axes.plot(x, value, color=colour, label=label, marker="o", markersize=3, linestyle=style)
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def _layer(part: Mapping[str, Any]) -> str:
    """Return the layer of figures that show one layer: the middle one."""
    return str(part["layers"][len(part["layers"]) // 2])


def _chance(part: Mapping[str, Any], layer: str, measure: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return strengths, and the smallest and largest value of random directions of the vector's length and aim."""
    strengths = np.array(part["strengths"])
    positive = strengths[strengths > 0]
    low, high = [], []
    for c in strengths[strengths != 0]:
        draws = np.array(part["random"][layer]["suppress" if c > 0 else "promote"][measure])
        column = draws[:, list(positive).index(abs(c))]
        low.append(column.min())
        high.append(column.max())
    return strengths[strengths != 0], np.array(low), np.array(high)


def _range_label(part: Mapping[str, Any], layer: str) -> str:
    return f"range of {len(part['random'][layer]['suppress']['fidelity'])} random directions"


def shares(kind: str, sweeps: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot which sentence is chosen against strength, a panel for each model."""
    figure, panels = _panels(1, len(sweeps), f"What is chosen, {kind}s (layer {_layer(sweeps[0])})")
    for axes, part in zip(panels[0], sweeps, strict=True):
        layer = _layer(part)
        for (measure, label), colour in zip(SHARES.items(), COLOURS, strict=False):
            _line(axes, part["strengths"], part["steered"][layer][measure], label, colour)
            x, low, high = _chance(part, layer, measure)
            for side in (x < 0, x > 0):
                axes.fill_between(x[side], low[side], high[side], facecolor="none", edgecolor=colour, hatch="///",
                                  alpha=0.35, linewidth=0, label=_range_label(part, layer))  # fmt: skip
        axes.axvline(0, color="grey", linewidth=0.6)
        axes.set(title=part["arm"], xlabel="strength (+ suppresses)", ylim=(-0.03, 1.03))
    panels[0][0].set_ylabel("share of held-out examples")
    below(figure, panels[0][0])
    return figure


def heatmap(kind: str, sweeps: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot intended and collateral moves by layer and strength; a dot marks cells that a random direction matches."""
    figure, panels = _panels(2, len(sweeps), f"Intended and collateral moves, {kind}s", 3.1, 2.6)
    image = None
    for column, part in enumerate(sweeps):
        for row, measure in enumerate(("intended", "collateral")):
            axes = panels[row][column]
            grid = np.array([[cell[0] for cell in part["steered"][str(k)][measure]] for k in part["layers"]])
            image = axes.imshow(grid, vmin=0, vmax=0.5, cmap="viridis", aspect="auto", origin="lower")
            axes.set_xticks(range(len(part["strengths"])), [f"{c:g}" for c in part["strengths"]], fontsize=7)
            axes.set_yticks(range(len(part["layers"])), [str(k) for k in part["layers"]])
            for i, layer in enumerate(part["layers"]):
                x, _, high = _chance(part, str(layer), measure)
                for c, largest in zip(x, high, strict=True):
                    j = part["strengths"].index(float(c))
                    if grid[i, j] <= largest:
                        axes.plot(j, i, ".", color="white", markersize=4)
            axes.set_title(f"{part['arm']}: {measure}", fontsize=9)
        draws = len(part["random"][str(part["layers"][0])]["suppress"]["fidelity"])
        panels[1][column].set_xlabel(f"strength (dot: not above the\nlargest of {draws} random directions)")
    panels[0][0].set_ylabel("layer")
    panels[1][0].set_ylabel("layer")
    if image is not None:
        figure.colorbar(image, ax=panels, label="share of held-out examples", shrink=0.7)
    return figure


def icat(kind: str, sweeps: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the change of ICAT and its two parts: language modelling, and balance of stereotype and opposite."""
    figure, panels = _panels(1, len(sweeps), f"What the change of ICAT is made of, {kind}s (layer {_layer(sweeps[0])})")
    for axes, part in zip(panels[0], sweeps, strict=True):
        layer, strengths = _layer(part), part["strengths"]
        steered, x = part["steered"][layer], np.arange(len(part["strengths"]))
        lms, ss, total = (_ends(steered[f"icat_{name}"]).T for name in ("lms_part", "ss_part", "change"))
        for offset, (cells, label, colour) in zip((-0.2, 0.2), ((lms, "by LMS", 2), (ss, "by SS", 1)), strict=True):
            spread = np.abs(cells[:, 1:] - cells[:, :1]).T
            axes.bar(x + offset, cells[:, 0], 0.38, yerr=spread, label=label, color=COLOURS[colour],
                     error_kw={"elinewidth": 0.7})  # fmt: skip
        axes.plot(x, total[:, 0], color="black", marker="o", markersize=3, label="change of ICAT")
        plain = steered["icat"][strengths.index(0.0)][0]
        c, low, high = _chance(part, layer, "icat")
        positions = [strengths.index(float(strength)) for strength in c]
        axes.vlines(positions, low - plain, high - plain, color="grey", linewidth=5, alpha=0.35,
                    label=_range_label(part, layer))  # fmt: skip
        axes.axhline(0, color="grey", linewidth=0.6)
        axes.set_xticks(x, [f"{strength:g}" for strength in strengths], fontsize=7)
        axes.set(title=part["arm"], xlabel="strength (+ suppresses)")
    panels[0][0].set_ylabel("points of ICAT")
    below(figure, panels[0][0])
    return figure


def methods(kind: str, parts: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the methods at equal effect and at equal drift; random directions are grey."""
    marks = (
        ("equal effect", "collateral", "collateral"),
        ("equal effect", "kl", "KL of neutral text, nats"),
        ("equal KL", "intended", "intended"),
        ("equal KL", "fidelity", "fidelity"),
    )
    figure, panels = _panels(len(parts), len(marks), f"Methods at equal effect and at equal KL, {kind}s", 3.0, 2.6)
    for row, part in zip(panels, parts, strict=True):
        named = [name for name in part["methods"] if not name.startswith("random")]
        labels = [*named, "random"]
        for axes, (mark, measure, label) in zip(row, marks, strict=True):
            for y, name in enumerate(labels):
                group = [
                    figures
                    for other_name, figures in part["methods"].items()
                    if other_name == name or other_name.startswith(f"{name} ")
                ]
                for cell in (figures[mark][measure] for figures in group if mark in figures):
                    value = cell[0] if isinstance(cell, list) else cell
                    colour = "grey" if name == "random" else COLOURS[0]
                    axes.plot(value, y, "o", color=colour, markersize=4, alpha=0.7)
                    if isinstance(cell, list) and name != "random":
                        axes.hlines(y, cell[1], cell[2], color=colour, linewidth=1.2)
                if not any(mark in figures for figures in group):
                    axes.text(0.02, y, "not reached", transform=axes.get_yaxis_transform(), fontsize=7, va="center",
                              color="grey")  # fmt: skip
            axes.set_yticks(range(len(labels)), labels, fontsize=8)
            axes.set(title=f"{part['arm']}, {mark}", xlabel=label)
            axes.title.set_fontsize(8)
    return figure


def likelihood(parts: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the paper's figure: normalised log-likelihoods, negatives then positives, each sorted by the baseline."""
    columns: list[tuple[str, Mapping[str, Any], Any]] = []
    draws = len(parts[0]["random"]["margin_change"])
    for part in parts:
        form = f"{part['model']}, chat" if part["chat"] else part["model"]
        columns.append((f"{form}, strength 1", part["shown"]["1"]["figure"], part["random_figure"]))
        if "as_a_method" in part:
            columns.append((f"{part['model']} against base", part["as_a_method"]["figure"], None))
    figure, panels = _panels(1, len(columns), f"Likelihood of {parts[0]['behaviour']}, prompts sorted", 3.2)
    for axes, (title, curves, chance) in zip(panels[0], columns, strict=True):
        control, steered = np.array(curves["control"]), np.array(curves["steered"])
        x, n = np.arange(len(control)), len(control) // 2
        for side in (x < n, x >= n):
            axes.plot(x[side], control[side], color=COLOURS[0], label="control", linewidth=1.2)
            axes.plot(x[side], steered[side], color="#c00000", label="steered", linewidth=0.8)
            if chance is not None:
                low, high = np.array(chance)[:, side]
                axes.fill_between(x[side], low, high, color="grey", alpha=0.35, linewidth=0,
                                  label=f"range of {draws} random directions")  # fmt: skip
        for start, band in zip((0, n), curves["bands"], strict=True):
            axes.fill_between([start, start + n - 1], *band, color=COLOURS[4], alpha=0.25, linewidth=0)
        axes.axvline(n - 0.5, color="black", linewidth=0.8)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("negatives | positives")
    panels[0][0].set_ylabel("normalised log-likelihood")
    below(figure, panels[0][0])
    return figure


def dose_response(parts: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot margin, positives and negatives against strength; a column for each behaviour, a row for each model."""
    forms = list(dict.fromkeys((part["model"], part["chat"]) for part in parts))
    behaviours = list(dict.fromkeys(part["behaviour"] for part in parts))
    figure, panels = _panels(len(forms), len(behaviours), "Change of log-likelihoods with strength", 3.1, 2.4)
    names = {"margin_change": "margin", "positive_change": "positives", "negative_change": "negatives"}
    for part in parts:
        axes = panels[forms.index((part["model"], part["chat"]))][behaviours.index(part["behaviour"])]
        for (measure, label), colour in zip(names.items(), COLOURS, strict=False):
            _line(axes, part["strengths"], part["curves"][measure], label, colour)
        positive = [c for c in part["strengths"] if c > 0]
        draws = np.array(part["random"]["margin_change"])
        axes.fill_between(positive, draws.min(0), draws.max(0), color="grey", alpha=0.35, linewidth=0,
                          label=f"margin, range of {len(draws)} random directions")  # fmt: skip
        axes.axhline(0, color="grey", linewidth=0.6)
        axes.set_title(f"{part['behaviour']}, {part['model']}{', chat' if part['chat'] else ''}", fontsize=9)
    for row in panels:
        row[0].set_ylabel("nats per token")
    for axes in panels[-1]:
        axes.set_xlabel("strength")
    below(figure, panels[0][0])
    return figure


def anisotropy(part: Mapping[str, Any]) -> Figure:
    """Plot each model's anisotropy, and the effect of removing the common mean or top component."""
    models = list(part["anisotropy"])
    measures = list(next(iter(next(iter(part["anisotropy"].values())).values())))
    figure = Figure(figsize=(3.1 * len(measures), 6.4), layout="constrained")
    grid = figure.subplots(2, len(measures), squeeze=False)
    for axes, measure in zip(grid[0], measures, strict=True):
        for model, colour in zip(models, COLOURS, strict=False):
            layers = [int(layer) for layer in part["anisotropy"][model]]
            _line(axes, layers, [estimates[measure] for estimates in part["anisotropy"][model].values()], model, colour)
        axes.set(title=measure.replace("_", " "), xlabel="layer")
    outcomes = [(m, c) for m in ("fidelity", "pattern_nats") for c in ("1", "-1")]
    for axes, (measure, c) in zip(grid[1], outcomes, strict=False):
        variants = list(next(iter(part["causal"][models[0]].values()))["differences"])
        for i, model in enumerate(models):
            for setting, result in part["causal"][model].items():
                layer, strength = setting.split("/")
                if strength != c:
                    continue
                for y, variant in enumerate(variants):
                    value, low, high = _ends([result["differences"][variant][measure]])[:, 0]
                    height = y + (i - len(models) / 2 + 0.5) * 0.25 + (int(layer) - 2) * 0.04
                    axes.plot(value, height, "o", color=COLOURS[i], markersize=2.5, label=model)
                    axes.hlines(height, low, high, color=COLOURS[i], linewidth=0.8)
        axes.axvline(0, color="grey", linewidth=0.6)
        axes.set_yticks(range(len(variants)), variants if axes is grid[1][0] else [""] * len(variants), fontsize=7)
        axes.locator_params(axis="x", nbins=4)
        axes.set_title(f"change of {measure.replace('_', ' ')}, strength {c}", fontsize=8)
    below(figure, grid[0][0])
    return figure


def ground_truth(parts: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot reported figures with their intervals against the true values."""
    measures = {"share_change": "change of P(stereotype | stereotype or opposite)", "fidelity": "fidelity"}
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    for axes, (measure, title) in zip(figure.subplots(1, 2), measures.items(), strict=True):
        for part, colour in zip(parts, COLOURS * 3, strict=False):
            cells = part["compared"][measure]
            value, low, high = _ends([cell["reported"] for cell in cells])
            true = [cell["true"] for cell in cells]
            axes.errorbar(true, value, np.abs(np.stack([value - low, high - value])), fmt="o", markersize=3,
                          elinewidth=0.7, color=colour, label=f"{part['arm']}, {part['kind']}")  # fmt: skip
        ends = axes.get_xlim()
        axes.plot(ends, ends, color="black", linewidth=0.7)
        axes.set(title=title, xlabel="true, over all sentences", ylabel="reported, with its interval")
        axes.title.set_fontsize(9)
        axes.spines[["top", "right"]].set_visible(False)
        below(figure, axes)
    return figure
