"""Successive halving: the better half goes on, passes are counted, and training is that of `fit`."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from conftest import ROOT

import lightning_steer as ls
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.behaviours.pairs import Pairs
from lightning_steer.methods import LearnedVector
from lightning_steer.selection.halving import Round, halve, schedule, spent
from lightning_steer.workflows.fit import backbone
from lightning_steer.workflows.search import Search
from lightning_steer.workflows.steer import SHARES, Steered, searched

PAIRS = ls.read_pairs(ROOT / "configs/pairs.jsonl")
TEXTS = [
    "In the autumn, the grey cat watched under the tree.",
    "In the morning, the hungry horse rested beside the pond.",
    "In the summer, the brown horse played along the fence.",
    "In the evening, the small fox slept near the barn.",
]
EPOCHS = 8


@pytest.mark.parametrize(("candidates", "passes"), [(1, 1), (1, 100), (2, 1), (5, 3), (5, 100), (12, 100), (32, 64)])
def test_rounds_double_the_passes_while_they_halve_the_candidates(candidates: int, passes: int) -> None:
    calls: list[tuple[int, int]] = []

    def score(candidate: int, so_far: int) -> float:
        calls.append((candidate, so_far))
        return float(candidate)  # the later, the better

    rounds = halve(candidates, passes, score)
    assert [round_.passes for round_ in rounds] == schedule(candidates, passes)
    assert rounds[0].candidates == list(range(candidates))
    for earlier, later in pairwise(rounds):
        assert later.passes > earlier.passes
        assert later.candidates == earlier.candidates[len(earlier.candidates) // 2 :]
    assert rounds[-1].passes == passes
    assert calls == [(candidate, part.passes) for part in rounds for candidate in part.candidates]
    trained: dict[int, int] = dict(calls)  # the last is the most, and training goes on from where it was
    assert spent(rounds) == sum(trained.values())
    assert spent(rounds) <= candidates * passes
    if passes >= 64 and candidates >= 5:
        assert len(rounds[-1].candidates) == 1
        assert spent(rounds) <= passes * (1 + math.log2(candidates) / 2) * 1.1


def test_the_best_is_found_where_learning_curves_do_not_cross() -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(100):
        ends = torch.rand(12, generator=random).tolist()
        rounds = halve(12, 64, lambda candidate, so_far, ends=ends: ends[candidate] * (1 - 2 ** -(so_far / 16)))
        assert rounds[-1].candidates == [ends.index(max(ends))]


def test_ties_go_to_the_first_and_what_is_of_no_use_goes() -> None:
    assert halve(4, 4, lambda *_: -math.inf)[-1] == Round([0], 4)
    assert halve(4, 4, lambda candidate, _: 0.0 if candidate == 2 else -math.inf)[-1] == Round([2], 4)
    with pytest.raises(ValueError, match="at least one candidate and one pass, not 0 and 5"):
        halve(0, 5, lambda *_: 0.0)


@pytest.fixture(scope="module")
def llm() -> ls.LLM:
    return ls.LLM(str(ROOT / "checkpoints/pocket/base"))


@pytest.fixture(scope="module")
def full(llm: ls.LLM) -> Steered:
    return searched(llm, PAIRS, method=LearnedVector, reference_texts=TEXTS, epochs=EPOCHS, full_grid=True)


@pytest.fixture(scope="module")
def halved(llm: ls.LLM) -> Steered:
    return searched(llm, PAIRS, method=LearnedVector, reference_texts=TEXTS, epochs=EPOCHS)


def test_the_choice_is_nearly_that_of_training_every_layer(full: Steered, halved: Steered) -> None:
    assert full.grid.tried.all()
    assert not full.grid.rounds
    rounds = halved.grid.rounds
    assert spent(rounds) < 0.5 * len(full.grid.layers) * EPOCHS
    assert halved.grid.tried.any(1).nonzero().flatten().tolist() == list(rounds[-1].candidates)
    chosen, best = (float(search.grid.effect[search.setting]) for search in (halved, full))
    assert chosen >= 0.95 * best
    assert f"{spent(rounds)} passes instead of {5 * EPOCHS}" in halved.reason
    assert "halving" not in full.reason


def test_rounds_compare_vectors_as_long_as_they_will_be(llm: ls.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a part of the passes the strengths are as much larger; the last round has those of the search itself."""
    strengths_by_candidate: dict[int, set[float]] = {}
    cells = Search.cells

    def look(self: Search, layer: int, strengths: Sequence[float]) -> object:
        strengths_by_candidate.setdefault(self.asked[self.llm.sites[layer]], set()).update(strengths)
        return cells(self, layer, strengths)

    monkeypatch.setattr(Search, "cells", look)
    searched(llm, PAIRS, [3, 4], LearnedVector, [1.0, 2.0], reference_texts=TEXTS, epochs=4)
    assert strengths_by_candidate == {2: {2.0, 4.0}, 4: {1.0, 2.0}}


def test_what_is_left_is_trained_as_if_it_were_alone(full: Steered, halved: Steered) -> None:
    (layer,) = halved.grid.rounds[-1].candidates
    width = min(len(search.grid.strengths) for search in (full, halved))
    for halved_values, full_values in ((halved.grid.effect, full.grid.effect), (halved.grid.damage, full.grid.damage)):
        torch.testing.assert_close(halved_values[layer, :width], full_values[layer, :width], rtol=0, atol=1e-5)


def test_the_vector_is_the_one_that_was_searched(llm: ls.LLM, halved: Steered) -> None:
    """Lightning trains the chosen layer again, as the search has trained it: pass for pass."""
    layer = halved.grid.layers[halved.setting.layer]
    search = Search(backbone(llm, layer), BehaviourDataModule(Pairs(PAIRS), None, False, *SHARES), LearnedVector, TEXTS)
    for passes in (1, 3, EPOCHS):  # in parts, as halving does
        search.train(0, passes)
        search.catch_up(0)
    (searched_for,), (saved,) = (list(maps) for maps in (search.methods.values(), halved.vector.maps))
    vector, other = searched_for.get_parameter("vector"), saved.get_parameter("vector")
    assert float(other.abs().max()) > 0
    torch.testing.assert_close(other, vector, rtol=0, atol=1e-6)
