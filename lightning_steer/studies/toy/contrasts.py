"""All contrasts of the toy study's axes: does a vector lead with few pairs, and a map with many?

A contrast claims both, so its p-value is the larger of two one-sided ones (intersection-union, Berger 1982), over
networks; Holm's correction is over all contrasts of an axis. The axes belong to the small networks. The report's
network has its own table, because what holds for one architecture need not hold for another.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_steer.statistics.claims import ASSUMED, Result, above, below
from lightning_steer.statistics.estimate import LEVEL
from lightning_steer.statistics.multiplicity import holm
from lightning_steer.studies.toy.intervals import MEANING

VECTORS = ("mean difference", "learned vector")
MAPS = ("ridge", "Gaussian transport", "LoReFT 4", "LoReFT 8", "LEACE by value")
FEW = "8"
PRIMARY = {
    "density": ("4 values per dimension (w 32)", "learned vector", "LoReFT 4"),
    "attributes": ("4 attributes (w 48)", "mean difference", "Gaussian transport"),
    "values": ("16 values (w 32)", "learned vector", "Gaussian transport"),
}
"""The one contrast that each axis' claim rests on. It was chosen after networks 0 to 7 had been examined."""


class LevelContrast(NamedTuple):
    """One vector compared with one map at one level."""

    level: str
    vector: str
    other: str
    few: Result
    many: Result

    @property
    def p(self) -> float:
        """P-value of the claim that both hold: the larger of the two."""
        return max(self.few.p, self.many.p)


def differences(part: Mapping[str, Any], vector: str, other: str, size: str) -> NDArray:
    """Return exact match of the vector minus that of the map ``[N]``: a mean over target sets for each network."""
    values = [np.asarray(part["methods"][method][size]["exact"]) for method in (vector, other)]
    return (values[0] - values[1]).reshape(len(values[0]), -1).mean(1)


def contrasts(levels: Sequence[tuple[str, Mapping[str, Any]]]) -> list[LevelContrast]:
    """Return all contrasts of an axis, whatever their results.

    Args:
        levels: name and part of each level.
    """
    comparisons = [
        (level, part, vector, other)
        for level, part in levels
        for vector in VECTORS
        for other in MAPS
        if {vector, other} <= part["methods"].keys()
    ]
    results = []
    for level, part, vector, other in comparisons:
        sizes = sorted(set(part["methods"][vector]) & set(part["methods"][other]), key=int)
        few = FEW if FEW in sizes else sizes[0]
        lead, lag = (differences(part, vector, other, size) for size in (few, sizes[-1]))
        results.append(
            LevelContrast(level, vector, other, above(lead, 0, len(comparisons)), below(lag, 0, len(comparisons)))
        )
    return results


def table(axis: str, levels: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return one axis' contrasts as Markdown, and how many of them support the claim."""
    axis_contrasts = contrasts(levels)
    adjusted = holm([contrast.p for contrast in axis_contrasts])
    lines = [
        f"| all contrasts, {axis} | vector - map | few pairs | could have seen | many pairs | could have seen | p | "
        "p, Holm | both shown |",
        f"|{'---|' * 9}",
    ]
    for contrast, p in zip(axis_contrasts, adjusted, strict=True):
        primary = " (primary)" if PRIMARY.get(axis) == (contrast.level, contrast.vector, contrast.other) else ""
        cells = [cell for result in (contrast.few, contrast.many) for cell in (str(result.estimate), _seen(result))]
        shown = "yes" if p <= 1 - LEVEL else "no"
        row = [
            contrast.level,
            f"{contrast.vector} - {contrast.other}{primary}",
            *cells,
            f"{contrast.p:.2g}",
            f"{p:.2g}",
            shown,
        ]
        lines.append(f"| {' | '.join(row)} |")
    shown = int((adjusted <= 1 - LEVEL).sum())
    lines.append(f"\n{axis}: {shown} of {len(axis_contrasts)} contrasts show both, after Holm.\n")
    return "\n".join(lines)


def _seen(result: Result) -> str:
    return f"{result.detectable:.2f}" if math.isfinite(result.detectable) else "-"


def text(results: Mapping[str, Mapping[str, Any]], axes: Sequence[tuple[str, str, str]], own: str) -> str:
    """Return the tables of all axes, with the report's network (``own``) in a section of its own.

    Args:
        results: parts by name.
        axes: axis, level and part of each cell.
        own: name of the axis that holds the cells of the report's network.
    """
    by_axis: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for axis, level, name in axes:
        if name in results:
            by_axis.setdefault(axis, []).append((level, results[name]))
    small = [table(axis, levels) for axis, levels in by_axis.items() if axis != own]
    head = (
        "### All contrasts: does the vector lead with few pairs, and the map with many?\n\nDifference of exact match, "
        f"vector less map. {MEANING} p is the larger of the two one-sided ones, Holm's over all of an axis. "
        f"{ASSUMED.format(unit='networks')} Primary: the contrast that the axis' claim rests on; it was named after "
        "these networks had been looked at, so that its p-value describes them and confirms nothing. Could have seen: "
        "in 80 % of repeats.\n"
    )
    scope = "On small networks of 16 attributes:\n"
    large = [f"On the report's network of 60 attributes:\n\n{table(own, by_axis[own])}"] if own in by_axis else []
    return "\n".join([head, *([scope, *small] if small else []), *large])
