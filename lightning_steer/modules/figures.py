"""Estimates in the form of reports: single figures, curves, and the range of random draws."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lightning_steer.report.tables import RANGE
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.random_control import RandomControl

BOUND = (
    "not an interval: a lower bound at the certificate's own confidence; where rows come in clusters, of the mean over "
    "clusters, each counting once"
)
Figures = dict[str, dict[str, Any]]
"""``{name: {"value", "low", "high", "n", "clusters", "how"}}``; random draws also have ``p`` and
``higher_is_better``."""


def plain(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as a report's figure."""
    return estimate._asdict()


def as_estimates(figures: Figures) -> dict[str, Estimate]:
    """Return a report's figures as the records that they were."""
    return {name: Estimate(**figure) for name, figure in figures.items()}


def certified_bound(bound: float, rows: int, clusters: int | None) -> dict[str, Any]:
    """Return a certified improvement as a report's figure: its lower end is itself, and it has no upper one."""
    return plain(Estimate(bound, bound, math.nan, rows, clusters, BOUND))


def random_range(
    draws: ArrayLike, fitted: float, higher_is_better: bool | None, searched: bool = False
) -> dict[str, Any]:
    """Return random draws in the form of reports: the median, minimum and maximum as ends, and the rank p-value.

    Args:
        draws: ``[D]`` values of the draws.
        fitted: the value that is ranked among them.
        higher_is_better: tells which draws are at least as good; None: no rank.
        searched: whether the setting was searched for the fitted value; if so, no rank.
    """
    values = np.asarray(draws, dtype=np.float64)
    control = RandomControl(None if searched else higher_is_better).estimate(values, fitted)[0]
    ends = {"value": control.median, "low": control.minimum, "high": control.maximum}
    ranked = {"p": control.p, "higher_is_better": higher_is_better}
    return {**ends, "n": control.draws, "clusters": None, "how": RANGE, **ranked}


def points(x: Sequence[float], columns: Mapping[str, Sequence[Estimate]]) -> dict[str, Any]:
    """Return a curve, ``{"x": [...], measure: {"value": [...], "low": [...], "high": [...]}}``."""
    keys = ("value", "low", "high")
    return {"x": list(x)} | {
        name: {k: [getattr(p, k) for p in column] for k in keys} for name, column in columns.items()
    }


def by_strength(
    strengths: Sequence[float],
    columns: Mapping[str, Sequence[Estimate]],
    identity_strength: float,
    start: Mapping[str, Estimate],
) -> dict[str, Any]:
    """Return a curve in ascending order of strength; ``start`` is its value where nothing is changed."""
    x = list(strengths)
    if identity_strength not in x:
        x = [identity_strength, *x]
        columns = {name: [start[name], *column] for name, column in columns.items()}
    order = sorted(range(len(x)), key=lambda i: x[i])
    return points([x[i] for i in order], {name: [column[i] for i in order] for name, column in columns.items()})
