"""Cells where intervals were seen to fail: one cluster that holds much of all rows, and texts with a long tail."""

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lightning_steer.statistics.kinds import Mean, Share
from lightning_steer.studies.coverage import designs
from lightning_steer.studies.coverage.cell import Cell, Layout, Outcome, columns_of


def unequal_cells() -> list[Cell]:
    """One cluster holds a third of the rows, or 60 %."""
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
    """The probability that texts lose, 1 - exp(-KL), where a few of them carry the KL."""
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
