"""Search with one method after another, and take the one with the largest effect within the budget."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.errors import UserError
from lightning_steer.hooks import Edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.selection.coarse import LEAST_LAYERS
from lightning_steer.selection.grid import Grid, Setting
from lightning_steer.workflows.explore import explore
from lightning_steer.workflows.fluency import Fluency
from lightning_steer.workflows.search import Search
from lightning_steer.workflows.unfinished import Unfinished

FURTHER = (8.0, 12.0), (16.0, 24.0)
"""What is tried next where the largest strength so far is the best within the budget, and nobody asked for others."""


class Trial(NamedTuple):
    """The search with one method."""

    name: str
    """Of the method's class."""
    method: Callable[[int], SteeringMethod]
    search: Search
    fluency: Fluency
    grid: Grid
    setting: Setting | None
    """The best within the budget that leaves text whole; None if there is none."""

    @property
    def effect(self) -> float:
        """Effect of the best setting, in nats per token, on the pairs that choose; minus infinity if there is none."""
        return -math.inf if self.setting is None else float(self.grid.effect[self.setting])


def own_strengths(unfitted: SteeringMethod, requested: Sequence[float] | None) -> list[float]:
    """Return the strengths to try, from the weakest to the strongest; raises ValueError if the method has no such.

    Args:
        unfitted: the method.
        requested: strengths in its units; None for its own.
    """
    low, high = unfitted.strength_range
    tried = sorted(
        requested or unfitted.default_strengths, key=lambda strength: abs(strength - unfitted.identity_strength)
    )
    if outside := [strength for strength in tried if not low <= strength <= high]:
        raise UserError(
            f"strengths of {type(unfitted).__name__} lie between {low:g} and {high:g}, not at {outside[0]:g}: "
            f"give others, the weakest first, such as {', '.join(map(str, unfitted.default_strengths))}"
        )
    return tried


def search_with(
    methods: Sequence[Callable[[int], SteeringMethod]],
    llm: LLM,
    data: BehaviourDataModule,
    strengths: Sequence[float] | None,
    budget: float,
    texts: Sequence[str],
    written: Sequence[str],
    full_grid: bool,
    passes: int = 1,
    unfinished: Sequence[Unfinished] | None = None,
    lines: bool = False,
    beside: Mapping[str, Edit] = MappingProxyType({}),
) -> list[Trial]:
    """Return the search with each method, the one with the largest effect first; ties as they came.

    Args:
        methods: each makes an unfitted method from a width.
        llm: the model, with all layers that may be tried.
        data: its first part is fitted to, its second chooses.
        strengths: those to try, in the units of each method; None for its own.
        budget: the most damage to unrelated text, in nats per token.
        texts: unrelated text that chooses.
        written: what the model itself writes after the first words of these texts.
        full_grid: try every layer at all strengths, however many layers there are.
        passes: over the fitted pairs, of methods that are trained through the output.
        unfinished: what is known of each method's search already; None for nothing.
        lines: say how far a search is, if it is long.
        beside: edits that steer, too.
    """
    known = unfinished or [Unfinished() for _ in methods]
    unfitted = [method(llm.width(llm.sites[0])) for method in methods]
    requested = [own_strengths(method, strengths) for method in unfitted]  # all are checked before any is tried
    trials: list[Trial] = []
    fluency: Fluency | None = None
    for method, one, tried, measured in zip(methods, unfitted, requested, known, strict=True):
        further = FURTHER if strengths is None and one.strength_range[1] == math.inf else ()
        search = Search(llm, data, method, texts, written, measured, lines, beside)
        fluency = fluency.of(search.methods) if fluency else Fluency(llm, data, search.methods, budget, beside)
        all_cells = full_grid or (len(llm.layers) < LEAST_LAYERS and not one.trained)
        grid = explore(search, fluency, tried, further, all_cells, passes)
        trials.append(Trial(type(one).__name__, method, search, fluency, grid, fluency.best_whole(grid)))
    return sorted(trials, key=lambda trial: -trial.effect)


def compared(trials: Sequence[Trial]) -> str:
    """Return how the other methods did, as the end of a sentence; empty if there is one alone."""
    told = [f"{trial.name} {_best_of(trial)}" for trial in trials]
    return f"; methods by their best setting: {', '.join(told)}" if len(trials) > 1 else ""


def _best_of(trial: Trial) -> str:
    if trial.setting is None:
        return "none within the budget that leaves text whole"
    layer, strength = trial.grid.layers[trial.setting.layer], trial.grid.strengths[trial.setting.strength]
    return f"{trial.effect:.3f} (layer {layer}, strength {strength:g})"
