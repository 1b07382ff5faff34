"""One cell on a language model: every method searches on the same rows, and is judged on the same other rows.

The search is that of ``steer``: its split, its grid of layers and strengths, its budget and its look at text; layers
are two, strengths half of a method's own, with two more between the strongest within the budget and the next.
"""

import copy
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_steer.data.base import SteeringBatch
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.behaviours.pairs import Pairs
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods import MeanDifference
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.modules import fit_data, interventions
from lightning_steer.selection.grid import Grid, Setting
from lightning_steer.strength import UnreadableError
from lightning_steer.studies.arena import prompting
from lightning_steer.studies.arena.entrants import PROMPT, Entrant
from lightning_steer.studies.arena.tasks import pairs
from lightning_steer.workflows.explore import explore
from lightning_steer.workflows.fit import backbone
from lightning_steer.workflows.fluency import Fluency
from lightning_steer.workflows.search import Search, damage, own_text
from lightning_steer.workflows.steer import SHARES, reference_texts_for


class LanguageScale(NamedTuple):
    """How much is run."""

    layers: tuple[int, ...] = (1, 3)
    pairs: int = 80
    texts: int = 14
    """Reference texts that choose, and as many others that judge."""
    training_steps: int = 24
    training_rows: int = 16
    learning_rate: float = 0.03
    sizes: tuple[int, ...] = ()
    """Fitted pairs at which closed forms are fitted again; the last is all that there are."""


QUICK = LanguageScale(layers=(1,), pairs=20, texts=2, training_steps=1, training_rows=4)
VERSION = 2
"""Of the search: raise it when the same settings give other figures. Before 2 every method was given the first one's
figures wherever both were tried at the same layer and strengths."""
BUDGET = 0.1
"""Nats per token, the budget of ``steer``."""


class JudgedGrid(NamedTuple):
    """Held-out figures of each strength."""

    effect: Tensor
    """``[S]`` mean change of the margin, nats per token; NaN where a strength cannot be read."""
    preferred: Tensor
    """``[S]`` change of the share of prompts whose positive continuation is the likelier one."""
    damage: Tensor
    """``[S]`` KL on the judging texts, nats per token."""


class LanguageCell:
    """A model, a task and a seed, read once for all methods.

    Args:
        model: folder of a pocket model.
        task: a name of :data:`~lightning_steer.studies.arena.tasks.LANGUAGE`.
        seed: draws pairs and split.
        scale: how much is run.
        part: part of the blocks that is steered.
    """

    def __init__(self, model: Path, task: str, seed: int, scale: LanguageScale, part: str) -> None:
        self.scale = scale
        self.llm = backbone(LLM(str(model), list(scale.layers), part=part), list(scale.layers))  # type: ignore[arg-type]
        texts, count = reference_texts_for(self.llm, None), scale.texts
        self.data = BehaviourDataModule(Pairs(pairs(task, seed, scale.pairs)), None, False, *SHARES, seed=seed)
        self.choosing = Search(self.llm, self.data, MeanDifference, texts[: 2 * count : 2])
        self.fluency = Fluency(self.llm, self.data, self.choosing.methods, BUDGET)
        self.judging = copy.copy(self.choosing)
        self.judging.batches = list(self.data.test_dataloader()[0])
        self.judging.baseline = [self._scores(batch) for batch in self.judging.batches]
        rest = texts[1 : 2 * count : 2]
        self.judging.texts = [rest, own_text(self.llm, rest, without=texts[: 2 * count : 2])]
        self.budget, self.held_out = BUDGET, sum(len(batch.row) for batch in self.judging.batches)
        self.columns: dict[bool, dict[str, Tensor]] = {}

    @torch.no_grad()
    def _scores(self, batch: SteeringBatch) -> Tensor:
        return self.llm.scores(batch.x)[0]

    def rows(self, sensitivity: bool) -> dict[str, Tensor]:
        """Return the columns that methods are fitted to; with the output's gradients if asked."""
        if sensitivity not in self.columns:
            batches = self.data.train_dataloader()
            read = [fit_data.read(self.llm, self.choosing.evaluation, batch, sensitivity) for batch in batches]
            self.columns[sensitivity] = {name: torch.cat([part[name] for part in read]) for name in read[0]}
        return self.columns[sensitivity]

    def fitted(self, entrant: Entrant, count: int | None = None) -> dict[str, SteeringMethod]:
        """Return the entrant fitted at every layer to the first ``count`` pairs, or to all."""
        made = {site: entrant.make(self.llm.width(site)) for site in self.llm.sites}
        columns = self.rows(any(method.needs_sensitivity for method in made.values()))
        for site, method in made.items():
            rows = min(count or len(columns["error"]), len(columns["error"]))
            method.fit(fit_data.activations(columns, site, rows, True, self.llm.heads(site)))
            if method.trained:
                self._train(site, method)
        return made

    def _train(self, site: str, method: SteeringMethod) -> None:
        """Train one site's method through the output, on batches of fitted pairs."""
        random, (batch,) = torch.Generator().manual_seed(0), list(self.data.train_dataloader())
        optimizer = torch.optim.Adam(method.parameters(), lr=self.scale.learning_rate)
        edits, copies = interventions.together([interventions.steered("", {site: method}, [1.0])], [site])
        for _ in range(self.scale.training_steps):
            rows = torch.randperm(len(batch.x), generator=random)[: self.scale.training_rows].tolist()
            part = batch._replace(x=[batch.x[i] for i in rows], negative=[batch.negative[i] for i in rows])
            with torch.enable_grad():
                loss = self.choosing.evaluation.loss(self.llm.scores(part.x, edits, copies), part).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        method.requires_grad_(False)

    def chosen(self, entrant: Entrant, made: Mapping[str, SteeringMethod]) -> tuple[Grid, Setting | None]:
        """Search layers and strengths as ``steer`` does, then nearer to the budget."""
        search, fluency = copy.copy(self.choosing), self.fluency.of(made)
        search.methods = dict(made)
        grid = explore(search, fluency, entrant.strengths, entrant.further, full_grid=True)
        for layer in range(len(grid.layers)):
            between = nearer(grid, layer)
            grid = with_strengths(grid, between)
            if between:
                places = range(len(grid.strengths) - len(between), len(grid.strengths))
                grid = grid.filled(layer, places, *search.cells(layer, between))
        return grid, fluency.best_whole(grid)

    @torch.no_grad()
    def judge(self, site: str, method: SteeringMethod, strengths: Sequence[float]) -> JudgedGrid:
        """Measure one site's method on the held-out rows at every strength."""
        judging = self.judging
        try:
            edits, copies = interventions.together([interventions.steered("", {site: method}, strengths)], [site])
            rows = [
                judging.evaluation.rows(before, self.llm.scores(batch.x, edits, copies), batch)
                for before, batch in zip(judging.baseline, judging.batches, strict=True)
            ]
            names = ("margin_change", "intended_preferred_change")
            effect, preferred = (torch.cat([part[name] for part in rows], 1).mean(1).cpu() for name in names)
            return JudgedGrid(effect, preferred, damage(self.llm, judging.texts, edits, copies))
        except UnreadableError:
            if len(strengths) == 1:
                nothing = torch.full((1,), math.nan, dtype=torch.float64)
                return JudgedGrid(nothing, nothing, torch.full((1,), math.inf, dtype=torch.float64))
            each = [self.judge(site, method, [strength]) for strength in strengths]
            return JudgedGrid(*(torch.cat(column) for column in zip(*each, strict=True)))

    def spread(self) -> float:
        """Return the standard deviation of the held-out rows' unsteered margins, nats per token."""
        margin = torch.cat([scores[:, 0] - scores[:, 1] for scores in self.judging.baseline])
        return float(margin.double().std())


def nearer(grid: Grid, layer: int) -> list[float]:
    """Return two strengths between a layer's strongest within the budget and the next one, if there is one."""
    damages = [(s, d) for s, d in zip(grid.strengths, grid.damage[layer].tolist(), strict=True) if not math.isnan(d)]
    for (weak, low), (strong, high) in itertools.pairwise(damages):
        if low <= BUDGET < high:
            return [weak + (strong - weak) / 3, weak + 2 * (strong - weak) / 3]
    return []


def with_strengths(grid: Grid, more: Sequence[float]) -> Grid:
    """Return the grid with strengths that have not been tried."""
    return grid.widened(Grid.untried(grid.layers, list(more), grid.rows)) if more else grid


def outcome(cell: LanguageCell, entrant: Entrant, count: int | None = None) -> dict[str, Any]:
    """Fit, search and judge one method; without a setting that helps, the model stays as it is."""
    start = time.process_time()
    nothing = {"effect": 0.0, "preferred": 0.0, "damage": 0.0, "layer": None, "curve": []}
    try:
        made = cell.fitted(entrant, count)
    except ValueError as error:
        return {**nothing, "refused": str(error)}
    seconds = time.process_time() - start
    grid, setting = cell.chosen(entrant, made)
    if setting is None:
        return {**nothing, "fit_seconds": seconds}
    site, method = cell.llm.sites[setting.layer], made[cell.llm.sites[setting.layer]]
    tried = [s for s, seen in zip(grid.strengths, grid.tried[setting.layer].tolist(), strict=True) if seen]
    tried.sort(key=lambda strength: abs(strength - method.identity_strength))
    judged = cell.judge(site, method, tried)
    column = tried.index(grid.strengths[setting.strength])
    return {
        "effect": float(judged.effect[column]),
        "preferred": float(judged.preferred[column]),
        "damage": float(judged.damage[column]),
        "layer": grid.layers[setting.layer],
        "strength": tried[column],
        "chosen_by": {"effect": float(grid.effect[tuple(setting)]), "damage": float(grid.damage[tuple(setting)])},
        "fit_seconds": seconds,
        "curve": [[s, float(e), float(d)] for s, e, d in zip(tried, judged.effect, judged.damage, strict=True)],
    }


def run(
    model: Path, task: str, seed: int, scale: LanguageScale, listed: Sequence[Entrant], prompted: bool = True
) -> dict[str, Any]:
    """Return what every entrant, and the prompt if it competes, reaches in one cell."""
    cells = {part: LanguageCell(model, task, seed, scale, part) for part in dict.fromkeys(e.part for e in listed)}
    first = next(iter(cells.values()))
    results = {entrant.name: outcome(cells[entrant.part], entrant) for entrant in listed}
    if prompted:
        results[PROMPT] = prompting.outcome(first)
    sizes = {
        str(size): {e.name: outcome(cells[e.part], e, size)["effect"] for e in listed if not e.trained}
        for size in scale.sizes
    }
    return {"spread": first.spread(), "held_out": first.held_out, "methods": results, "sizes": sizes}
