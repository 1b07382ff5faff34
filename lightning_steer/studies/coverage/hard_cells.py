"""Cells where intervals have failed: one cluster with most of the rows, long tails, few skewed rows and units."""

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lightning_steer.statistics import intervals
from lightning_steer.statistics.kinds import Intervals, Mean, Share
from lightning_steer.studies.coverage import designs
from lightning_steer.studies.coverage.cell import Cell, Layout, Outcome, columns_of


def unequal_cells() -> list[Cell]:
    """Return cells where one cluster holds a third of the rows, or 60 %."""
    cells = []
    for layout in itertools.starmap(
        Layout, itertools.product((12, 30, 100), ("one of a third", "one of 60 %"), (0.1, 0.3, 0.6))
    ):
        for p in (0.05, 0.2, 0.5):
            draw = partial(designs.shares, p=p)
            layout.add("share, very unequal clusters", f"p {p:g}", Share(), draw, p, 1, p)
            draw = partial(designs.halves, p=p)
            layout.add("mean in [0, 1], very unequal clusters", f"mean {p:g}", Mean(0, 1), draw, p, 1, p)
        cells += layout.cells
    return cells


LAWS = ("lognormal 1", "lognormal 1.5", "lognormal 2", "Pareto 1.5", "Pareto 2.5")


def drift_cells() -> list[Cell]:
    """Return cells of the probability that texts lose, 1 - exp(-KL), where a few texts carry most of the KL."""
    cells = []
    for law, median, (n, tokens) in itertools.product(
        LAWS, (0.001, 0.02, 0.2), ((30, 1), (100, 1), (500, 1), (30, 10), (100, 10))
    ):
        cluster = None if tokens == 1 else np.repeat(np.arange(n), tokens)
        draw = partial(designs.drifts, law=law, scale=median, n=n, tokens=tokens)
        name = f"{n} texts of {tokens} token{'s' * (tokens > 1)}, {law}, median KL {median:g}"
        outcome = partial(_drift, draw=draw, cluster=cluster, law=law, scale=median, tokens=tokens)
        cells.append(Cell("probability lost by texts, long tails", name, outcome))
    return cells


def _drift(
    random: Generator,
    sets: int,
    draw: Callable[..., NDArray],
    cluster: NDArray | None,
    law: str,
    scale: float,
    tokens: int,
) -> Outcome:
    return columns_of(Mean(0, 1), draw, cluster, designs.mean_drift(law, scale, tokens), 1)(random, sets)


def unbounded_cells() -> list[Cell]:
    """Return cells of unbounded means: skewed rows, clusters and units, few and many; few have no interval.

    Nothing can be promised for more skewed laws at these sizes; the page states their coverage.
    """
    cells = []
    for n, law in itertools.product((6, 10, 15, 30, 100), ("normal", "exponential", "lognormal 0.5")):
        outcome = columns_of(Mean(), partial(designs.many, law=law, n=n), None, designs.MEANS[law], np.nan)
        cells.append(Cell("mean of a real column, independent rows", f"n {n}, {law}", outcome))
    for clusters, law in itertools.product((6, 10, 24, 30, 100), ("exponential", "lognormal 0.5")):
        draw = partial(designs.skewed_clusters, law=law, clusters=clusters)
        outcome = columns_of(Mean(), draw, np.repeat(np.arange(clusters), 10), 1, np.nan)
        cells.append(Cell("mean of a real column, skewed clusters", f"{clusters} clusters of 10, {law}", outcome))
    laws = ("normal", "failures of a tenth", "Beta 20 0.5", "Beta 50 0.3", "lognormal 1")
    for n, law in itertools.product((3, 5, 8, 10, 20, 50, 100), laws):
        if law != "normal" and intervals.UNITS <= n < 50:
            continue
        cells.append(Cell("mean over independent units", f"{n} units, {law}", partial(_units, law=law, n=n)))
    return cells


def _units(random: Generator, sets: int, law: str, n: int) -> Outcome:
    units = designs.many(random, law, n, sets)
    simulated = Intervals(
        units.mean(0),
        *intervals.over_units(units),
        f"t over independent units, skew-adjusted, from {intervals.UNITS} on",
    )
    return {"": (simulated, designs.MEANS[law], np.nan)}
