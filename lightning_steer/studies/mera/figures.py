"""The study's figures: one for each model and mixture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lightning_steer.report.figures import COLOURS, below
from lightning_steer.studies.mera.judging import CURVES


def figures(
    results: Mapping[tuple[str, str, int], Mapping[str, Any]], groups: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Figure]:
    """Plot improvement and certified bound against alpha, probe quality by layer, predicted against true error."""
    by_group: dict[tuple[str, str], Figure] = {}
    for model, mixture in groups:
        draws = [result for key, result in results.items() if key[:2] == (model, mixture)]
        tasks = list(draws[0])
        figure = Figure(figsize=(4 * len(tasks), 9), layout="constrained")
        grid = figure.subplots(3, len(tasks), squeeze=False)
        for i, task in enumerate(tasks):
            cells = [draw[task] for draw in draws]
            for name, colour in zip(CURVES, COLOURS, strict=False):
                curves = [cell["methods"][name]["curve"] for cell in cells]
                x = curves[0]["strength"]
                test, lower = (np.mean([c[k] for c in curves], 0) for k in ("test", "lower"))
                grid[0, i].plot(x, test, marker="o", markersize=3, color=colour, label=f"{name}, held out")
                grid[0, i].plot(x, lower, linestyle=":", color=colour, label=f"{name}, lower bound")
            grid[0, i].set(xscale="logit", xlabel="alpha", ylabel="change of accuracy", title=task)
            grid[0, i].axhline(0, color="grey", linewidth=0.6)
            r2 = np.array([cell["probes"]["r2"] for cell in cells])
            grid[1, i].errorbar(range(r2.shape[1]), r2.mean(0), r2.std(0), color=COLOURS[0], marker="o", capsize=3)
            grid[1, i].set(xlabel="layer", ylabel="R2 of logit error, cross-validated", ylim=(0, 1))
            points = np.mean([cell["truth"]["predicted_against_true"] for cell in cells], 0)
            grid[2, i].plot(points[0], points[1], marker="o", color=COLOURS[0], label="own error")
            grid[2, i].plot(points[0], points[2], marker="x", color=COLOURS[1], label="planted error")
            grid[2, i].plot([0, 1], [0, 1], color="grey", linewidth=0.6)
            grid[2, i].set(xlabel="predicted error, tenths", ylabel="mean error", xlim=(0, 1), ylim=(0, 1))
        grid[2, 0].legend(fontsize=8, frameon=False)
        below(figure, grid[0, 0])
        by_group[model, mixture] = figure
    return by_group
