"""Which settings leave whole the text that a model writes at the pairs' own prompts; each is generated once."""

import copy
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.pair_module import SELECT
from lightning_steer.hooks import Edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.modules import written
from lightning_steer.selection.grid import Grid, Setting, within_budget
from lightning_steer.vectors.steer import joined


class Fluency:
    """Text at the prompts that choose, looked at for one setting after another.

    Args:
        llm: the model, with all layers that are tried.
        data: its selecting part's prompts are continued.
        methods: the fitted methods by site.
        budget: the most damage to unrelated text, in nats per token.
        beside: edits that steer, too.
    """

    def __init__(
        self,
        llm: LLM,
        data: BehaviourDataModule,
        methods: Mapping[str, SteeringMethod],
        budget: float,
        beside: Mapping[str, Edit] = MappingProxyType({}),
    ) -> None:
        self.llm, self.methods, self.budget, self.beside = llm, methods, budget, beside
        prompts = data.continued(SELECT, written.PROMPTS)
        self.prompts, self.positive = [question.prompt for question in prompts], written.of_positives(llm, prompts)
        self.baseline = written.continued(llm, self.prompts)
        self.broken: dict[tuple[int, float], bool] = {}
        """By the place of the layer and the strength itself: places of strengths differ between grids."""

    def of(self, methods: Mapping[str, SteeringMethod]) -> "Fluency":
        """Return the same for other methods: the unsteered text is not generated again."""
        other = copy.copy(self)
        other.methods, other.broken = methods, {}
        return other

    def whole(self, grid: Grid, setting: Setting) -> bool:
        """Tell whether steered text neither repeats words nor is less likely than the positive continuations."""
        strength = grid.strengths[setting.strength]
        if (setting.layer, strength) not in self.broken:
            site = self.llm.sites[setting.layer]
            edits = joined(self.beside, {site: partial(self.methods[site], strength=strength)})
            steered = written.continued(self.llm, self.prompts, edits)
            self.broken[setting.layer, strength] = (
                self.baseline is not None
                and steered is not None
                and bool(written.broken(steered, self.baseline, self.positive))
            )
        return not self.broken[setting.layer, strength]

    def best(self, grid: Grid) -> Setting | None:
        """Return the setting with the largest effect within the budget that is not known to break text."""
        return next(
            (setting for setting in within_budget(grid, self.budget) if not self._known_broken(grid, setting)), None
        )

    def best_whole(self, grid: Grid) -> Setting | None:
        """Return the setting with the largest effect within the budget that breaks no text."""
        while (setting := self.best(grid)) is not None and not self.whole(grid, setting):
            pass
        return setting

    def passed_over(self, grid: Grid, setting: Setting) -> int:
        """Count the settings within the budget that come before this one, and break text."""
        order = within_budget(grid, self.budget)
        return sum(self._known_broken(grid, other) for other in order[: order.index(setting)])

    def _known_broken(self, grid: Grid, setting: Setting) -> bool:
        return self.broken.get((setting.layer, grid.strengths[setting.strength]), False)
