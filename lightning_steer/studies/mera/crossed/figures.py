"""SPI against R2 over the penalties of each kind of probe, along w and along Sigma w."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from lightning_steer.report.figures import COLOURS, below
from lightning_steer.studies.mera.crossed.declaration import PATHS
from lightning_steer.studies.mera.crossed.results import Cells, by_kind, deployed

NAMES = {"lasso": "lasso, least squares", "ridge": "ridge", "logistic": "logistic"}


def against_r2(cells: Cells, kinds: Sequence[str]) -> Figure:
    """Plot a panel for each kind of world; a point is a penalty, averaged over networks, tasks and draws."""
    figure = Figure(figsize=(14, 3.1 * -(-len(kinds) // 4)), layout="constrained")
    grid = figure.subplots(-(-len(kinds) // 4), 4, squeeze=False, sharex=True, sharey=True)
    for kind, axes in zip(kinds, grid.flat, strict=False):
        kind_cells = {key: cell for key, cell in cells.items() if key.kind == kind}
        probes = [f["probe"] for f in next(iter(kind_cells.values()))["families"] if f["direction"] == "Sigma w"]
        for name, colour in zip(PATHS["any"], COLOURS, strict=False):
            for direction, style in (("w", "-"), ("Sigma w", ":")):
                points = []
                for probe in dict.fromkeys(p for p in probes if p.split()[0] == name):
                    pick = (probe, direction, "adaptive")
                    points.append([by_kind(kind_cells, lambda cell, pick=pick, r2=r2: _figure(cell, pick, r2))[kind]
                                   for r2 in (True, False)])  # fmt: skip
                x, y = np.array(sorted(points)).T
                label = f"{NAMES[name]}, along {direction}"
                axes.plot(x, y, style, color=colour, marker="o" if style == "-" else "x", markersize=4, label=label)
        axes.set(title=kind, xlim=(-0.05, 1), ylim=(-0.05, 1.02))
        axes.axhline(0, color="grey", linewidth=0.6)
    for axes in grid[-1]:
        axes.set_xlabel("R2 of the probe, held out")
    for axes in grid[:, 0]:
        axes.set_ylabel("SPI deployed")
    below(figure, grid[0, 0])
    return figure


def _figure(cell: dict, pick: tuple[str, str, str], r2: bool) -> float:
    family = next((f for f in cell["families"] if (f["probe"], f["direction"], f["dose"]) == pick), None)
    if family is None:
        return float("nan")
    return family["r2"] if r2 else deployed(cell, family)
