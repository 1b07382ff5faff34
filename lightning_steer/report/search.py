"""The report of a search over layers and strengths: a table, a heat map, and texts before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from lightning_steer.escapes import for_markdown
from lightning_steer.markdown import table
from lightning_steer.report import card
from lightning_steer.report.files import write_figure, write_text
from lightning_steer.report.tables import number

Table = Sequence[Sequence[float]]


def write(folder: Path, search: Mapping[str, Any], texts: Sequence[Mapping[str, str]]) -> None:
    """Write ``search.md`` and ``search.png``.

    Args:
        folder: the folder that they are written to.
        search: ``layers``, ``strengths``, ``effect`` and ``damage`` (``[layers, strengths]``; NaN: not tried),
            ``budget``, the indices of the ``chosen`` layer and strength, the ``reason``, and ``others``, the tables of
            other methods by name, if several were tried.
        texts: ``prompt``, ``baseline`` and ``steered`` continuation of each prompt.
    """
    write_figure(heat_map(search), folder, "search")
    write_text(folder / "search.md", markdown(search, texts))


def markdown(search: Mapping[str, Any], texts: Sequence[Mapping[str, str]]) -> str:
    """Return the search as Markdown: reason for the setting, table of all settings, texts."""
    lines = [
        "# Search\n",
        f"{for_markdown(search['reason'])}.\n",
        "Effect (mean change of the margin, nats per token) / damage (KL on unrelated text, nats per token) by "
        "layer and strength; - was not tried. These figures chose the setting, so those of the chosen one are too "
        "good; report.md has its effect and damage on pairs and texts that played no part in the choice.\n",
        _table(search),
        "![search](search.png)\n",
        *(f"## {name}\n\n{_table(other)}" for name, other in search.get("others", {}).items()),
        "## Texts\n",
        card.texts(texts),
    ]
    return "\n".join(lines)


def heat_map(search: Mapping[str, Any]) -> Figure:
    """Plot effect and damage by layer and strength; hatched cells break the budget, the chosen one is framed."""
    layers, strengths = search["layers"], search["strengths"]
    figure = Figure(figsize=(11, 1.8 + 0.32 * len(layers)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    effect, damage = np.asarray(search["effect"]), np.asarray(search["damage"])
    largest = max(float(np.nanmax(np.abs(effect), initial=0)), 1e-9)
    titles = "effect (nats per token)", "damage: KL on unrelated text (nats per token)"
    _panel(figure, panels[0], effect, titles[0], cmap="PuOr", norm=TwoSlopeNorm(0, -largest, largest))
    _panel(figure, panels[1], damage, titles[1], cmap="Greys", vmin=0, vmax=max(4 * search["budget"], 1e-9))
    for axes in panels:
        axes.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
        axes.set_yticks(range(len(layers)), [str(layer) for layer in layers])
        axes.set_xlabel("strength")
        for i, j in zip(*np.nonzero(damage > search["budget"]), strict=True):
            axes.add_patch(_frame(i, j, fill=False, hatch="///", linewidth=0, edgecolor="grey"))
        for i, j in zip(*np.nonzero(np.isnan(damage)), strict=True):
            axes.text(j, i, "-", ha="center", va="center", color="grey")
        axes.add_patch(_frame(*search["chosen"], fill=False, linewidth=2.5, edgecolor="#009e73"))
    panels[0].set_ylabel("layer")
    told = f"hatched: changes unrelated text by more than {search['budget']:g}; framed: chosen"
    figure.supxlabel(told + "; -: not tried" * bool(np.isnan(damage).any()), fontsize=8)
    return figure


def _table(search: Mapping[str, Any]) -> str:
    rows = [
        [str(layer), *(_cell(e, d) for e, d in zip(effect, damage, strict=True))]
        for layer, effect, damage in zip(search["layers"], search["effect"], search["damage"], strict=True)
    ]
    return "\n".join(table(["layer", *(f"{strength:g}" for strength in search["strengths"])], rows)) + "\n"


def _cell(effect: float, damage: float) -> str:
    return "-" if np.isnan(damage) else f"{number(effect)} / {number(damage)}"


def _panel(figure: Figure, axes: Axes, values: np.ndarray, title: str, **style: Any) -> None:
    image = axes.imshow(values, aspect="auto", origin="lower", **style)
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes)


def _frame(row: int, column: int, **style: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, **style)
