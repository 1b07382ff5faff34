"""Which settings of a search are tried: all of them, or a part from coarse to fine."""

import itertools
from collections.abc import Sequence

from torch import Tensor

from lightning_steer.selection.coarse import CoarseToFine
from lightning_steer.selection.grid import Grid
from lightning_steer.workflows.fluency import Fluency
from lightning_steer.workflows.search import Search


def explore(
    search: Search,
    fluency: Fluency,
    strengths: Sequence[float],
    further: Sequence[Sequence[float]],
    full_grid: bool,
) -> Grid:
    """Return effect and damage of the settings that were tried.

    Args:
        search: what measures them.
        fluency: which of them break text.
        strengths: those to try, from the weakest to the strongest.
        further: stronger ones, a few at a time, each tried where the strongest so far does best.
        full_grid: try every layer at all strengths.
    """
    if full_grid:
        return _whole(search, fluency, strengths, further)
    every = [*strengths, *itertools.chain(*further)]

    def measure(layer: int, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        return search.cells(layer, [every[place] for place in places])

    finder = CoarseToFine(
        Grid.untried(search.llm.layers, every, search.rows), len(strengths), measure, search.token_passes
    )
    finder.start(fluency.best)
    while (setting := fluency.best(finder.grid)) is not None and not fluency.whole(finder.grid, setting):
        finder.go_on(fluency.best)  # around the best of the others
    if setting is None:
        finder.rest()
    return finder.grid.without_untried()


def _whole(search: Search, fluency: Fluency, strengths: Sequence[float], further: Sequence[Sequence[float]]) -> Grid:
    grid = search.grid(strengths)
    for stronger in further:
        setting = fluency.best_whole(grid)
        if setting is None or setting.strength < len(grid.strengths) - 1:
            break
        grid = grid.widened(search.grid(stronger))
    return grid
