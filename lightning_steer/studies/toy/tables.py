"""Figures and tables of the toy study, from the numbers that its parts wrote."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lightning_steer.report.figures import COLOURS, below
from lightning_steer.report.files import write_figure, write_text
from lightning_steer.statistics.intervals import mean_over_units
from lightning_steer.studies.toy import contrasts as toy_contrasts
from lightning_steer.studies.toy import reproduction_tables as reproduction
from lightning_steer.studies.toy.contrasts import FEW, MAPS, VECTORS, differences
from lightning_steer.studies.toy.intervals import MEANING, over_networks

OWN = "report's network"
CLEAN_ENOUGH = 0.95
"""Cells whose unsteered network or oracle patch has a lower exact match allow no conclusion about steering."""


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Read all parts by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((folder / "parts").glob("*.json"))}


def write(folder: Path, axes: Sequence[tuple[str, str, str]]) -> str:
    """Write the figures and ``tables.md`` of all finished parts; return the tables as text."""
    results = read(folder)
    sections = [bounds_table(results, axes), toy_contrasts.text(results, axes, OWN), crossover_table(results, axes)]
    sections.append(method_table(results, axes))
    figures = {}
    for axis in dict.fromkeys(axis for axis, _, _ in axes):
        levels = [(level, results[name]) for a, level, name in axes if a == axis and name in results]
        if levels:
            figures[f"pairs_{axis.replace(' ', '_').replace(chr(39), '')}"] = by_pairs(axis, levels)
    if "vectors-none" in results:
        sections.append(reproduction.table(results))
        figures["attributes"] = reproduction.attributes(results["vectors-none"])
    points = reproduction.law_points(results)
    if points:
        sections.append(reproduction.law_table(points))
        figures["law"] = reproduction.law(points)
    for name, figure in figures.items():
        write_figure(figure, folder, name)
    content = "\n".join(sections)
    write_text(folder / "tables.md", content)
    return content


def exact(part: dict[str, Any], method: str, size: str) -> Any:
    """Return exact match ``[N][T]``."""
    return part["methods"][method][size]["exact"]


def bounds_table(results: dict[str, Any], axes: Sequence[tuple[str, str, str]]) -> str:
    """Return the table of what the network itself allows in each cell."""
    lines = [
        "### What bounds every method",
        "",
        f"Exact match of the unsteered network, of the oracle patch, and of a shift told the old value. {MEANING}",
        "",
        "| axis | level | unsteered network | oracle patch | told the old value | networks x sets |",
        "|---|---|---|---|---|---|",
    ]
    for axis, level, name in axes:
        if name in results:
            bounds = results[name]["bounds"]
            cells = [over_networks(bounds[key], 3) for key in ("clean_exact", "oracle_patch", "told_old_value")]
            shape = np.asarray(bounds["oracle_patch"]).shape
            verdict = "" if usable(results[name]) else " (too low: no conclusion)"
            lines.append(f"| {axis} | {level}{verdict} | {' | '.join(cells)} | {shape[0]} x {shape[1]} |")
    return "\n".join(lines) + "\n"


def usable(part: dict[str, Any]) -> bool:
    """Return whether clean accuracy and oracle patch are high enough for a statement about steering."""
    return all(np.mean(part["bounds"][key]) >= CLEAN_ENOUGH for key in ("clean_exact", "oracle_patch"))


def crossover_table(results: dict[str, Any], axes: Sequence[tuple[str, str, str]]) -> str:
    """Return vectors minus maps, paired, at few and at many pairs, and the budgets where the sign changes."""
    lines = [
        "### Where maps overtake vectors",
        "",
        f"Paired difference in exact match, vector minus map, at {FEW} pairs and at the largest budget (both set "
        f"beforehand). {MEANING} Crossing: the last budget at which the mean "
        "difference is above 0, and the next one. Left out: pairs of methods in which the vector does not lead at "
        f"{FEW} pairs, or the map does not lead at the end.",
        "",
        "| axis | level | vector | map | few pairs | many pairs | crossing | both in every network |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for axis, level, name in axes:
        if name not in results or not usable(results[name]):
            continue
        part = results[name]
        for vector in VECTORS:
            for other in MAPS[:4]:
                row = crossover(part, vector, other)
                if row:
                    lines.append(f"| {axis} | {level} | {vector} | {other} | {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def crossover(part: dict[str, Any], vector: str, other: str) -> list[str] | None:
    """Return the cells few, many, crossing and verdict; None where the map never leads."""
    if not {vector, other} <= part["methods"].keys():
        return None
    sizes = sorted(set(part["methods"][vector]) & set(part["methods"][other]), key=int)
    by_size = {size: differences(part, vector, other, size) for size in sizes}
    few = FEW if FEW in sizes else sizes[0]
    many = sizes[-1]
    lead, lag = by_size[few], by_size[many]
    if lead.mean() <= 0 or lag.mean() >= 0:
        return None
    leading = [i for i, size in enumerate(sizes) if by_size[size].mean() > 0]
    crossing = f"{sizes[leading[-1]]} - {sizes[leading[-1] + 1]}"
    in_every_network = "yes" if lead.min() > 0 > lag.max() else "no"
    return [f"n = {few}: {over_networks(lead, 2)}", f"n = {many}: {over_networks(lag, 2)}", crossing, in_every_network]


def method_table(results: dict[str, Any], axes: Sequence[tuple[str, str, str]]) -> str:
    """Return exact match and direction recovery of every method at a few budgets."""
    lines = [
        "### Every method",
        "",
        f"Exact match. {MEANING} Further columns: at the largest budget, accuracy of the other "
        "attributes, the cosine of the method's mean displacement with the true class difference, and the mean cosine "
        "with each pair's own difference.",
        "",
    ]
    for axis, level, name in axes:
        if name not in results:
            continue
        methods = results[name]["methods"]
        sizes = [size for size in ("8", "32", "128", "2048") if size in methods["mean difference"]]
        lines += [
            f"**{axis}: {level}**\n",
            f"| method | {' | '.join(f'n = {size}' for size in sizes)} | others | cosine, class | cosine, pair |",
            f"|---|{'---|' * (len(sizes) + 3)}",
        ]
        for method, by_size in methods.items():
            at_largest = by_size[max(by_size, key=int)]
            cells = [over_networks(by_size[s]["exact"], 2) if s in by_size else "-" for s in sizes]
            extra_cells = [
                f"{mean_over_units(at_largest[key]).value:.2f}" for key in ("others", "cosine_class", "cosine_pair")
            ]
            lines.append(f"| {method} | {' | '.join([*cells, *extra_cells])} |")
        lines.append("")
    return "\n".join(lines)


def by_pairs(axis: str, levels: Sequence[tuple[str, dict[str, Any]]]) -> Figure:
    """Plot exact match against the number of pairs: a panel for each level, a line for each method."""
    figure = Figure(figsize=(4.2 * len(levels), 4.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(levels), sharey=True))
    for axes, (level, part) in zip(panels, levels, strict=True):
        family = part["family"]
        for i, strength in enumerate(family["strengths"]):
            y = [np.asarray(values)[..., i].mean() for values in family["exact"].values()]
            x = [int(size) for size in family["exact"]]
            axes.plot(x, y, color="grey", linewidth=0.6, label="mean difference at fixed strengths")
            axes.annotate(f"{strength:g}", (x[-1], y[-1]), fontsize=6, color="grey")
        for method, colour in zip((*VECTORS, *MAPS), COLOURS, strict=False):
            by_size = part["methods"].get(method, {})
            x = [int(size) for size in by_size]
            networks = np.array([np.asarray(by_size[size]["exact"]).mean(1) for size in by_size])
            axes.plot(
                x,
                networks.mean(1),
                color=colour,
                label=method,
                marker="o",
                markersize=3,
                linestyle="-" if method in VECTORS else "--",
            )
            axes.fill_between(x, networks.min(1), networks.max(1), color=colour, alpha=0.12, linewidth=0)
        axes.axhline(
            float(np.mean(part["bounds"]["oracle_patch"])),
            color="black",
            linewidth=0.8,
            linestyle=":",
            label="oracle patch",
        )
        axes.set_xscale("log", base=2)
        axes.set(title=level, xlabel="pairs, choosing included", ylim=(-0.03, 1.05))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("exact match on held-out negatives")
    figure.suptitle(f"Axis of difficulty: {axis}" if axis != OWN else "The report's network")
    below(figure, panels[0])
    return figure
