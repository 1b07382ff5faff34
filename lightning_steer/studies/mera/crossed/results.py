"""From cells to the declared contrasts: choice of penalties, means over networks and kinds, tests, smallest effects."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from scipy.stats import t as student

from lightning_steer.statistics.estimate import LEVEL
from lightning_steer.statistics.intervals import mean_over_units
from lightning_steer.studies.declaration import Contrast, Result
from lightning_steer.studies.mera.crossed.declaration import PATHS, Comparison, Other, Side

SIMULATIONS = 4000


class Key(NamedTuple):
    """Key of a cell."""

    kind: str
    network: str
    task: str
    """Empty for small networks."""
    draw: int

    @property
    def file(self) -> str:
        """Return the name of the cell's file, without its suffix."""
        parts = (str(part).replace(", ", "_").replace(" ", "_").replace("%", "") for part in self if part != "")
        return "-".join(parts)


Cells = Mapping[Key, Mapping[str, Any]]


def chosen(cell: Mapping[str, Any], side: Side) -> Mapping[str, Any]:
    """Return the family of a side, with the penalty that its rule chooses; ties go to the first penalty."""
    needs_no_probe = side.dose == "constant" and side.direction not in ("w", "Sigma w")
    eligible = [
        f
        for f in cell["families"]
        if (f["direction"], f["dose"]) == (side.direction, side.dose)
        and (needs_no_probe or f["probe"].split()[0] in PATHS[side.path])
    ]
    if needs_no_probe:
        return eligible[0]
    if side.rule in ("R2", "gain"):
        return max(eligible, key=lambda f: f[side.rule.lower()])
    return next(f for f in eligible if f["probe"] == side.rule)


def deployed(cell: Mapping[str, Any], method: Mapping[str, Any], figure: str = "spi") -> float:
    """Return the figure that a user gets: of the steered model if certified, else of the baseline."""
    if method["certified"]:
        return method[figure]
    return 0.0 if figure == "spi" else cell["base"][figure]


def value(cell: Mapping[str, Any], side: Other, figure: str = "spi") -> float:
    """Return one side's figure in a cell; ``best of 20 random`` is chosen by the same figure, so it is optimistic."""
    if isinstance(side, Side):
        if figure == "rank":
            return rank(cell, side)
        return deployed(cell, chosen(cell, side), figure)
    if side == "nothing":
        return 0.0
    if side in cell["controls"]:
        return deployed(cell, cell["controls"][side], figure)
    figures = [deployed(cell, f, figure) for f in cell["families"] if f["direction"].startswith("random")]
    return float(max(figures) if side.startswith("best") else np.mean(figures))


def rank(cell: Mapping[str, Any], side: Side) -> float:
    """Return Spearman's correlation of R2 and deployed SPI over a path's penalties; NaN if all SPI are equal."""
    eligible = [f for f in cell["families"] if (f["direction"], f["dose"]) == (side.direction, side.dose)
          and f["probe"].split()[0] in PATHS[side.path]]  # fmt: skip
    r2, spi = [f["r2"] for f in eligible], [deployed(cell, f) for f in eligible]
    varies = len({round(s, 6) for s in spi}) > 1
    return float(np.corrcoef(rankdata(r2), rankdata(spi))[0, 1]) if varies else math.nan


def by_kind(cells: Cells, of: Any) -> dict[str, float]:
    """Return for each kind of world the mean over networks of the mean over tasks and draws of ``of(cell)``."""
    return {kind: _mean(list(row.values())) for kind, row in by_network(cells, of).items()}


def by_network(cells: Cells, of: Any) -> dict[str, dict[str, float]]:
    """Return ``{kind: {network: mean over tasks and draws}}``; cells without a value are skipped."""
    values_by_kind: dict[str, dict[str, list[float]]] = {}
    for key, cell in cells.items():
        values_by_kind.setdefault(key.kind, {}).setdefault(key.network, []).append(of(cell))
    return {kind: {network: _mean(values) for network, values in row.items()} for kind, row in values_by_kind.items()}


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return float(np.mean(finite)) if finite else math.nan


def result(cells: Cells, comparison: Comparison, claims: int) -> Result:
    """Return a contrast over kinds of world, each counting once.

    Args:
        cells: of the repairable kinds.
        comparison: the contrast with its sides.
        claims: number of claims of its question: the smallest effect is that at the strictest of Holm's levels.
    """
    values, contrast = units(cells, comparison), comparison.contrast
    return Result(mean_over_units(values), p_value(values, contrast), detectable(values, contrast, claims))


def units(cells: Cells, comparison: Comparison) -> NDArray:
    """Return the contrast in every kind of world, ``[kinds]``; kinds without a value are skipped."""
    left, right, figure = comparison.left, comparison.right, comparison.figure
    kinds = by_kind(cells, lambda cell: value(cell, left, figure) - value(cell, right, figure))
    return np.array([v for v in kinds.values() if math.isfinite(v)])


def p_value(units: NDArray, contrast: Contrast) -> float:
    """Return the p-value of a claim about the mean over units, by Student's t.

    It is 1 if all units are equal to the last digit, where t is undefined. What is not certified counts as 0,
    so such units may say nothing about the method.
    """
    n = len(units)
    if n < 2:
        return 1.0
    if contrast.direction == "within":
        return max(_above(units + contrast.limit), _above(contrast.limit - units))
    if contrast.direction == "differs from":
        return min(1.0, 2 * min(_above(units - contrast.limit), _above(contrast.limit - units)))
    return _above(units - contrast.limit if contrast.direction == "above" else contrast.limit - units)


def _above(units: NDArray) -> float:
    n, spread = len(units), units.std(ddof=1)
    if np.ptp(units) < 1e-12:
        return 1.0
    return float(student.sf(units.mean() / (spread / math.sqrt(n)), n - 1))


def detectable(units: NDArray, contrast: Contrast, claims: int, seed: int = 0) -> float:
    """Return the smallest true mean that 80 % of repeats would show, simulated from the units' spread.

    Repeats resample the observed units, centred and shifted. For ``within`` it is the smallest limit
    that a true 0 would be shown to lie within.
    """
    n = len(units)
    if n < 3:
        return math.nan
    random, sides = np.random.default_rng(seed), 2 if contrast.direction == "differs from" else 1
    centred = (units - units.mean()) * math.sqrt(n / (n - 1))
    drawn = centred[random.integers(n, size=(SIMULATIONS, n))]
    mean, error = drawn.mean(1), np.maximum(drawn.std(1, ddof=1), 1e-9) / math.sqrt(n)
    quantile = student.ppf(1 - (1 - LEVEL) / sides / claims, n - 1)
    needed = np.abs(mean) + quantile * error if contrast.direction == "within" else quantile * error - mean
    return float(max(np.quantile(needed, 0.8), 0.0))
