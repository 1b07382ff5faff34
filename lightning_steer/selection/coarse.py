"""Try a part of a grid: the last layer at every strength, then some others, then what lies beside the best so far.

A layer costs the less the higher it lies, and damage grows with the strength much alike in all layers. So the last one
tells at least cost which strengths are worth a look; every few layers are tried there, then those around the best.
"""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from lightning_steer.selection.grid import Grid, Setting

SHARE = 0.3
"""Of the whole grid's cost that may be spent: a third with what padding adds."""
LEAST_LAYERS = 8
"""Layers below which a third of the grid buys too few of them to find a best one that lies low."""
STEPS = 4
"""Layers of the first round are so many equal steps apart."""


class CoarseToFine:
    """A grid that is filled in where it is worth it.

    Args:
        grid: the layers and strengths that may be tried; nothing is tried yet.
        first: how many strengths, from the weakest, the whole grid would have; the others are tried only where one
            of these does best.
        measure: effect and damage, ``[strengths]`` each, of a layer at some strengths, by their places in the grid.
        cost: what measuring a layer at so many strengths costs.
    """

    def __init__(
        self,
        grid: Grid,
        first: int,
        measure: Callable[[int, Sequence[int]], tuple[Tensor, Tensor]],
        cost: Callable[[int, int], float],
    ) -> None:
        self.grid, self.first, self.measure, self.cost = grid, first, measure, cost
        self.limit = SHARE * sum(cost(layer, first) for layer in range(len(grid.layers)))
        self.spent = 0.0

    def start(self, best: Callable[[Grid], Setting | None]) -> None:
        """Try the last layer at every strength, and every few layers below it at strengths near the best so far.

        Args:
            best: the best setting of those that were tried; None if none will do.
        """
        last = len(self.grid.layers) - 1
        self._measure(last, range(self.first))
        if (setting := best(self.grid)) is not None and setting.strength == self.first - 1:
            self._measure(last, range(self.first, len(self.grid.strengths)))
        for layer in range(last - self._step, -1, -self._step):
            near = self._near(best(self.grid))
            if (
                self.spent + 2 * self.cost(layer, len(near)) > self.limit
            ):  # as much again is for what is beside the best
                break
            self._try(layer, near)
        self._refine(best, self._step // 2)

    def go_on(self, best: Callable[[Grid], Setting | None]) -> None:
        """Try what lies around the best setting, if it is another one now."""
        self._refine(best, 1)

    def rest(self) -> None:
        """Try all that is left of the whole grid, whatever it costs."""
        for layer in range(len(self.grid.layers)):
            self._measure(layer, self._untried(layer, range(self.first)))

    @property
    def _step(self) -> int:
        return max(2, math.ceil(len(self.grid.layers) / STEPS))

    def _refine(self, best: Callable[[Grid], Setting | None], step: int) -> None:
        while (setting := best(self.grid)) is not None:
            if self._stronger(best):
                continue
            if step < 1:
                return
            sides = [setting.layer + step, setting.layer - step]
            new = [side for side in sides if self._untried(side, [setting.strength])]
            near, alone = self._near(setting), [setting.strength]
            done = [self._try(side, near) or self._try(side, alone) for side in new]  # both sides
            if not any(done):
                step //= 2

    def _stronger(self, best: Callable[[Grid], Setting | None]) -> bool:
        """Try the next strengths where the best one is the strongest tried in its layer; whether there were any."""
        tried = False
        while (setting := best(self.grid)) is not None and self._try(setting.layer, [setting.strength + 1]):
            tried = True
        return tried

    @staticmethod
    def _near(setting: Setting | None) -> list[int]:
        """Places of the strength of a setting and those beside it; the weakest if there is none."""
        return [0] if setting is None else [setting.strength + offset for offset in (-1, 0, 1)]

    def _untried(self, layer: int, places: Sequence[int]) -> list[int]:
        if not 0 <= layer < len(self.grid.layers):
            return []
        inside = [place for place in places if 0 <= place < len(self.grid.strengths)]
        return [place for place in inside if not self.grid.tried[layer, place]]

    def _try(self, layer: int, places: Sequence[int]) -> bool:
        """Measure what is untried of these, if what may be spent allows it; whether it was done."""
        new = self._untried(layer, places)
        if not new or self.spent + self.cost(layer, len(new)) > self.limit:
            return False
        self._measure(layer, new)
        return True

    def _measure(self, layer: int, places: Sequence[int]) -> None:
        if not places:
            return
        self.spent += self.cost(layer, len(places))
        self.grid = self.grid.filled(layer, places, *self.measure(layer, places))
