"""The strength at which a learned vector repeats words has the largest effect; budget and text rule each refuse it."""

from functools import partial

import pytest
import torch
from conftest import ROOT

import lightning_steer as ls
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.behaviours.pairs import Pairs
from lightning_steer.methods import LearnedVector, MeanDifference
from lightning_steer.modules import written
from lightning_steer.selection.grid import Grid, Setting, within_budget
from lightning_steer.workflows.fit import backbone, fit
from lightning_steer.workflows.fluency import Fluency
from lightning_steer.workflows.search import Search
from lightning_steer.workflows.steer import reference_texts_for

STRENGTHS = [8.0, 16.0, 64.0, 128.0]
NO_BUDGET = 1e9


@pytest.fixture(scope="module")
def learned() -> tuple[Search, BehaviourDataModule]:
    """The last layer's learned vector, in place of the method that the search has fitted."""
    pairs = ls.read_pairs(ROOT / "configs/pairs.jsonl")
    llm = backbone(str(ROOT / "checkpoints/pocket/base"), [4])
    data = BehaviourDataModule(Pairs(pairs), None, False, 0.4, 0.3)
    search = Search(llm, data, MeanDifference, reference_texts_for(llm, None)[:8])
    vector = fit(llm, pairs, [4], LearnedVector, epochs=30)
    search.methods = {llm.sites[0]: vector.maps[0]}  # type: ignore[dict-item]
    return search, data


@pytest.fixture(scope="module")
def grid(learned: tuple[Search, BehaviourDataModule]) -> Grid:
    return learned[0].grid(STRENGTHS)


def repetition(search: Search, fluency: Fluency, strength: float) -> float:
    site = search.llm.sites[0]
    steered = written.continued(search.llm, fluency.prompts, {site: partial(search.methods[site], strength=strength)})
    assert steered is not None
    return float(steered.repeated.mean())


def test_the_largest_effect_repeats_words(learned: tuple[Search, BehaviourDataModule], grid: Grid) -> None:
    search, data = learned
    fluency = Fluency(search.llm, data, search.methods, NO_BUDGET)
    assert within_budget(grid, NO_BUDGET)[0] == Setting(0, 3)
    assert repetition(search, fluency, STRENGTHS[3]) > 0.5
    assert fluency.baseline is not None
    assert float(fluency.baseline.repeated.mean()) == 0


@pytest.mark.parametrize("budget", [0.1, NO_BUDGET])
def test_it_is_refused(learned: tuple[Search, BehaviourDataModule], grid: Grid, budget: float) -> None:
    """With the budget, and by what it writes alone."""
    search, data = learned
    fluency = Fluency(search.llm, data, search.methods, budget)
    chosen = fluency.best_whole(grid)
    assert chosen is not None
    assert grid.damage[chosen] <= budget
    assert repetition(search, fluency, STRENGTHS[chosen.strength]) <= written.REPEATED
    assert chosen.strength < 2
    assert fluency.passed_over(grid, chosen) == (2 if budget == NO_BUDGET else 0)


def test_the_budget_refuses_it_by_itself(grid: Grid) -> None:
    assert torch.all(grid.damage[0, 2:] > 0.1)
    assert all(setting.strength < 2 for setting in within_budget(grid, 0.1))
