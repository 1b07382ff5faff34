"""Which settings of a search are tried: all of them, or a part from coarse to fine, or by successive halving."""

import itertools
import math
from collections.abc import Callable, Sequence

from torch import Tensor

from lightning_steer.selection.coarse import CoarseToFine
from lightning_steer.selection.grid import Grid, Setting, within_budget
from lightning_steer.selection.halving import halve
from lightning_steer.workflows.fluency import Fluency
from lightning_steer.workflows.search import Search


def explore(
    search: Search,
    fluency: Fluency,
    strengths: Sequence[float],
    further: Sequence[Sequence[float]],
    full_grid: bool,
    passes: int = 1,
) -> Grid:
    """Return effect and damage of the settings that were tried.

    Args:
        search: what measures them.
        fluency: which of them break text.
        strengths: those to try, from the weakest to the strongest.
        further: stronger ones, a few at a time, each tried where the strongest so far does best.
        full_grid: try every layer at all strengths.
        passes: over the fitted pairs, of a method that is trained; without ``full_grid`` successive halving decides
            which layers have all of them.
    """
    if search.trained:
        return _trained(search, fluency, strengths, further, full_grid, passes)
    if full_grid:
        if search.progress is not None:
            search.progress.of = sum(
                search.token_passes(layer, len(strengths)) for layer in range(len(search.llm.layers))
            )
        return _widened(search.grid(strengths), search.grid, fluency.best_whole, further)
    every = [*strengths, *itertools.chain(*further)]

    def measure(layer: int, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        return search.cells(layer, [every[place] for place in places])

    finder = CoarseToFine(
        Grid.untried(search.llm.layers, every, search.rows), len(strengths), measure, search.token_passes
    )
    if search.progress is not None:
        search.progress.of = finder.limit
    finder.start(fluency.best)
    while (setting := fluency.best(finder.grid)) is not None and not fluency.whole(finder.grid, setting):
        finder.go_on(fluency.best)  # around the best of the others
    if setting is None:
        finder.rest()
    return finder.grid.without_untried()


def _widened(
    grid: Grid,
    measure: Callable[[Sequence[float]], Grid],
    best: Callable[[Grid], Setting | None],
    further: Sequence[Sequence[float]],
) -> Grid:
    """Return a grid with stronger strengths as long as its strongest does best."""
    for stronger in further:
        setting = best(grid)
        if setting is None or setting.strength < len(grid.strengths) - 1:
            break
        grid = grid.widened(measure(stronger))
    return grid


def _trained(
    search: Search,
    fluency: Fluency,
    strengths: Sequence[float],
    further: Sequence[Sequence[float]],
    full_grid: bool,
    passes: int,
) -> Grid:
    """Return the grid of the layers that are trained to the end; the others count as not tried."""
    layers = range(len(search.llm.layers))

    def at(some: Sequence[int], amounts: Sequence[float]) -> Grid:
        grid = Grid.untried(search.llm.layers, amounts, search.rows)
        for layer in some:
            grid = grid.filled(layer, range(len(amounts)), *search.cells(layer, amounts))
        return grid

    def best(grid: Grid) -> Setting | None:
        return next(iter(within_budget(grid, fluency.budget)), None)

    def score(layer: int, so_far: int) -> float:
        search.train(layer, so_far)
        longer = passes / so_far  # what is trained a part of the way moves activations about as much less

        def alike(amounts: Sequence[float]) -> Grid:
            return at([layer], [min(amount * longer, search.strongest) for amount in amounts])

        alone = _widened(alike(strengths), alike, best, further)
        setting = best(alone)
        return -math.inf if setting is None else float(alone.effect[setting])

    rounds = [] if full_grid else halve(len(layers), passes, score)
    grid = Grid.untried(search.llm.layers, strengths, search.rows)
    for left in (rounds[-1].candidates if rounds else layers, layers):  # all of them where none of these will do
        for layer in left:
            search.train(layer, passes)
            search.catch_up(layer)  # it writes text
        grid = _widened(at(left, strengths), lambda more, left=left: at(left, more), fluency.best_whole, further)
        if fluency.best_whole(grid) is not None:
            break
    return grid._replace(rounds=[] if grid.tried.any(1).all() else rounds)
