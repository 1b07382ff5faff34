"""A cell of the study: one estimate under one design."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lightning_steer.statistics.columns import as_clusters
from lightning_steer.statistics.kinds import Intervals, Kind
from lightning_steer.studies.coverage import designs

SEED = 20_260
Outcome = dict[str, tuple[Intervals, float, float]]
"""By estimate: intervals ``[S]``, the true value, and the full range, which is the width of a missing interval."""


@dataclass(frozen=True)
class Cell:
    """One design; ``outcome(random, sets)`` simulates it."""

    table: str
    design: str
    outcome: Callable[[Generator, int], Outcome]
    common: bool = False
    """Intervals may be missing in at most 20 % of the data sets."""
    kind: str = field(default="interval")

    def run(self, sets: int) -> list[dict]:
        """Return a row for each estimate of the cell."""
        random = np.random.default_rng([SEED, zlib.crc32(f"{self.table}/{self.design}".encode())])
        rows = []
        for name, (intervals, true, full_range) in self.outcome(random, sets).items():
            is_missing = np.isnan(intervals.low) | np.isnan(intervals.high)
            holds = is_missing | ((intervals.low <= true + 1e-12) & (true - 1e-12 <= intervals.high))
            width = np.where(
                is_missing | ~np.isfinite(intervals.high - intervals.low), full_range, intervals.high - intervals.low
            )
            rows.append(
                {
                    "table": self.table,
                    "design": self.design,
                    "estimate": name,
                    "sets": sets,
                    "holds": int(holds.sum()),
                    "width": float(width.mean()),
                    "none": float(is_missing.mean()),
                    "common": self.common,
                    "how": intervals.how,
                }
            )
        return rows


def columns_of(
    kind: Kind, draw: Callable[..., NDArray], cluster: NDArray | None, true: float, full: float
) -> Callable[[Generator, int], Outcome]:
    """Return a function that simulates one kind's intervals for columns from ``draw(random, sets)``."""

    def outcome(random: Generator, sets: int) -> Outcome:
        columns = draw(random=random, sets=sets)
        return {"": (kind.interval(columns, as_clusters(cluster, len(columns))), true, full)}

    return outcome


class Layout:
    """Collects the cells of one layout of clusters."""

    def __init__(self, clusters: int, sizes: str, icc: float) -> None:
        self.clusters, self.icc, self.cells = clusters, icc, []
        self.cluster = designs.layout(clusters, sizes)
        self.name = f"{clusters} clusters, {sizes}, ICC {icc:g}"

    def add(
        self, table: str, label: str, kind: Kind, draw: Callable[..., NDArray], true: float, full: float, p: float
    ) -> None:
        """Add a cell of this layout to the list."""
        outcome = columns_of(kind, partial(draw, icc=self.icc, cluster=self.cluster), self.cluster, true, full)
        self.cells.append(Cell(table, f"{self.name}, {label}", outcome, common=self.clusters >= 30 and p >= 0.2))
