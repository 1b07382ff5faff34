"""Search and judge again and again on rows resampled from one table, in which every item was scored once.

The table is the population: the mean of a column is the true effect there. No model runs again.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_steer.metrics.behaviour_effect import KINDS
from lightning_steer.selection.grid import Grid, within_budget


class JudgedIntervals(NamedTuple):
    """How often an interval of the chosen setting's effect holds the truth."""

    sets: int
    holds: int
    none: float
    """Share without an interval, which counts as holding."""
    bias: float
    """Mean of estimate minus truth."""
    width: float
    """Median width of the intervals that are given; NaN without any."""


class Coverage(NamedTuple):
    """On rows that played no part in the choice, and on those that chose."""

    held_out: JudgedIntervals
    choosing: JudgedIntervals
    settings: int
    """How many different settings were chosen."""


def coverage(effects: Tensor, damage: Tensor, budget: float, rows: int, repetitions: int, seed: int = 0,
             column: str = "margin_change", chosen_by: Tensor | None = None) -> Coverage:  # fmt: skip
    """Choose on some rows by the rule of the search, judge on others, and compare with the whole table.

    Args:
        effects: ``[items, layers, strengths]`` what is judged.
        damage: ``[layers, strengths]``; what breaks the budget cannot be chosen.
        budget: the most damage.
        rows: how many rows choose; as many others judge.
        repetitions: how often both are drawn, with replacement.
        seed: draws them.
        column: what kind of number is judged, by its name in a report.
        chosen_by: what is chosen by, of the same shape; None for the same as is judged.

    Raises:
        ValueError: nothing may be chosen in some repetition.
    """
    random = np.random.default_rng(seed)
    _, layers, strengths = effects.shape
    drawn = random.integers(len(effects), size=(2, repetitions, rows))
    rule = effects if chosen_by is None else chosen_by
    places = []
    for chooses in drawn[0]:
        grid = Grid(range(layers), range(strengths), rule[torch.from_numpy(chooses)].mean(0), damage, rows)
        allowed = within_budget(grid, budget)
        if not allowed:
            raise ValueError(f"nothing may be chosen within the budget of {budget:g}: raise it")
        places.append(allowed[0].layer * strengths + allowed[0].strength)
    chosen, values = np.array(places), effects.flatten(1).numpy()
    true = values.mean(0)[chosen]
    held_out, choosing = (_judged(column, values[part.T, chosen], true) for part in drawn[::-1])
    return Coverage(held_out, choosing, len(set(places)))


def _judged(column: str, rows: NDArray, true: NDArray) -> JudgedIntervals:
    """Judge ``rows [n, R]`` against the R truths."""
    intervals = KINDS[column].interval(rows, None)
    none = np.isnan(intervals.low) | np.isnan(intervals.high)
    holds = none | ((intervals.low <= true) & (true <= intervals.high))
    width = np.nan if none.all() else float(np.nanmedian(intervals.high - intervals.low))
    return JudgedIntervals(
        len(true), int(holds.sum()), float(none.mean()), float((intervals.value - true).mean()), width
    )
