"""Coarse to fine: what is tried costs at most a third, is never tried twice, and leads to the best of smooth grids."""

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from conftest import ROOT
from torch import Tensor

import lightning_steer as ls
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.behaviours.pairs import Pairs
from lightning_steer.methods import MeanDifference
from lightning_steer.report.search import heat_map, markdown
from lightning_steer.selection.coarse import SHARE, CoarseToFine
from lightning_steer.selection.grid import Grid, Setting, reason, within_budget
from lightning_steer.workflows.explore import explore
from lightning_steer.workflows.fit import backbone
from lightning_steer.workflows.fluency import Fluency
from lightning_steer.workflows.search import Search
from lightning_steer.workflows.steer import searched

STRENGTHS = [*MeanDifference.default_strengths, 8.0, 12.0, 16.0, 24.0]
FIRST = len(MeanDifference.default_strengths)
BUDGET = 0.1


class Surface:
    """A grid whose figures are known, and a record of what was asked of it."""

    def __init__(self, effect: Tensor, damage: Tensor, plain: float = 1.0) -> None:
        self.whole = Grid(range(len(effect)), STRENGTHS, effect, damage, 9)
        self.asked: Counter[Setting] = Counter()
        self.plain = plain
        self.finder = CoarseToFine(Grid.untried(self.whole.layers, STRENGTHS, 9), FIRST, self.measure, self.cost)

    def measure(self, layer: int, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        self.asked.update(Setting(layer, place) for place in places)
        return self.whole.effect[layer, list(places)], self.whole.damage[layer, list(places)]

    def cost(self, layer: int, strengths: int) -> float:
        depth = len(self.whole.layers)
        return layer + 1 + strengths * (depth - layer - 1) + self.plain * depth

    @staticmethod
    def best(grid: Grid) -> Setting | None:
        return next(iter(within_budget(grid, BUDGET)), None)


def smooth(depth: int, peak: int, scale: float) -> Surface:
    """Effects and damages that grow with the strength; the layer ``peak`` does best for its damage."""
    strength, layer = torch.tensor(STRENGTHS, dtype=torch.float64), torch.arange(depth).double()
    gain = torch.exp(-(((layer - peak) / depth) ** 2) / 0.2)
    return Surface(torch.outer(gain, strength), scale * (strength / 10) ** 2 * torch.ones(depth, 1))


@pytest.mark.parametrize("scale", [0.03, 0.2, 1.0, 50.0])
@pytest.mark.parametrize("depth", [12, 32])
def test_the_best_of_smooth_grids_is_found_at_a_third_of_the_cost(depth: int, scale: float) -> None:
    for peak in range(depth):
        surface = smooth(depth, peak, scale)
        surface.finder.start(surface.best)
        chosen, best = surface.best(surface.finder.grid), surface.best(surface.whole)
        if best is None:
            assert chosen is None
            continue
        assert chosen is not None
        assert surface.whole.effect[chosen] >= 0.95 * surface.whole.effect[best], (peak, chosen, best)
        whole = sum(surface.cost(layer, FIRST) for layer in range(depth))
        assert surface.finder.spent <= SHARE * whole


def test_nothing_is_tried_twice_and_nothing_is_made_up() -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(50):
        effect, damage = torch.rand(2, 12, len(STRENGTHS), generator=random).double()
        surface = Surface(effect, damage)
        surface.finder.start(surface.best)
        surface.finder.go_on(surface.best)
        grid = surface.finder.grid
        assert set(surface.asked.values()) == {1}
        assert set(surface.asked) == {Setting(*place) for place in grid.tried.nonzero().tolist()}
        assert torch.equal(grid.effect[grid.tried], surface.whole.effect[grid.tried])
        assert torch.equal(grid.damage[grid.tried], surface.whole.damage[grid.tried])
        assert grid.effect[~grid.tried].isnan().all()


def test_all_is_tried_where_nothing_will_do() -> None:
    effect = torch.full((6, len(STRENGTHS)), -1.0, dtype=torch.float64)
    surface = Surface(effect, torch.zeros_like(effect))
    surface.finder.start(surface.best)
    assert surface.best(surface.finder.grid) is None
    surface.finder.rest()
    assert surface.finder.grid.tried[:, :FIRST].all()
    assert not surface.finder.grid.tried[:, FIRST:].any()
    assert set(surface.asked.values()) == {1}


def test_stronger_ones_are_tried_where_the_last_is_the_best() -> None:
    surface = smooth(8, 7, 0.03)
    surface.finder.start(surface.best)
    assert surface.best(surface.finder.grid) == surface.best(surface.whole)
    assert surface.finder.grid.without_untried().strengths == STRENGTHS[: 1 + STRENGTHS.index(24.0)]
    weak = smooth(8, 7, 1.0)
    weak.finder.start(weak.best)
    assert weak.finder.grid.without_untried().strengths == STRENGTHS[:FIRST]


def test_what_was_not_tried_is_said() -> None:
    surface = smooth(8, 5, 0.2)
    surface.finder.start(surface.best)
    grid, setting = surface.finder.grid.without_untried(), surface.best(surface.finder.grid)
    assert setting is not None
    tried, every = int(grid.tried.sum()), grid.tried.numel()
    assert tried < every
    text = reason(grid, setting, BUDGET, 0)
    assert f"of {tried} settings tried" in text
    assert f"({int(grid.tried.any(1).sum())} layers tried" in text
    assert f"{every - tried} settings farther from the best were not tried" in text
    tables = {"effect": grid.effect.tolist(), "damage": grid.damage.tolist()}
    search = {**grid._asdict(), **tables, "chosen": setting, "budget": BUDGET, "reason": text}
    rows = [line for line in markdown(search, []).splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert sum(line.split(" | ").count("-") + line.endswith("| - |") for line in rows) == every - tried
    dashes = [text.get_text() for text in heat_map(search).axes[0].texts]
    assert dashes == ["-"] * (every - tried)
    assert "not tried" not in reason(surface.whole, setting, BUDGET, 0)


TEXTS = [
    "In the autumn, the grey cat watched under the tree.",
    "In the morning, the hungry horse rested beside the pond.",
    "In the summer, the brown horse played along the fence.",
]


@pytest.fixture(scope="module")
def llm() -> ls.LLM:
    return backbone(str(ROOT / "checkpoints/pocket/base"), range(5))


@pytest.fixture(scope="module")
def search(llm: ls.LLM) -> Search:
    return Search(llm, data(), MeanDifference, TEXTS)


def data() -> BehaviourDataModule:
    pairs = ls.read_pairs(ROOT / "configs/pairs.jsonl")
    return BehaviourDataModule(Pairs(pairs), fit_share=0.4, select_share=0.3)


def test_both_searches_measure_the_same(llm: ls.LLM, search: Search) -> None:
    fluency = Fluency(llm, data(), search.methods, BUDGET)
    strengths, further = STRENGTHS[:FIRST], ()
    whole = explore(search, fluency, strengths, further, full_grid=True)
    part = explore(search, fluency, strengths, further, full_grid=False)
    assert whole.tried.all()
    assert part.tried.sum() <= whole.tried.sum() / 2
    for part_values, whole_values in ((part.effect, whole.effect), (part.damage, whole.damage)):
        torch.testing.assert_close(part_values[part.tried], whole_values[part.tried], rtol=0, atol=1e-5)
    chosen, best = fluency.best_whole(part), fluency.best_whole(whole)
    assert chosen is not None
    assert whole.effect[chosen] >= 0.95 * whole.effect[best]


def test_the_cost_is_what_runs(llm: ls.LLM, search: Search) -> None:
    """Tokens through blocks, seen by hooks: no more than counted but for padding."""
    passed: Counter[str] = Counter()
    handles = [
        llm.model.get_submodule(site).register_forward_hook(
            lambda _block, _args, h: passed.update(n=(h[0] if isinstance(h, tuple) else h).shape[:-1].numel())
        )
        for site in llm.sites
    ]
    try:
        for layer, strengths in ((0, 1), (0, 9), (2, 3), (4, 9)):
            passed.clear()
            search.unfinished.known.clear()  # what is known is not measured again
            search.cells(layer, STRENGTHS[:strengths])
            counted = search.token_passes(layer, strengths)
            assert counted <= passed["n"] <= 1.2 * counted
    finally:
        for handle in handles:
            handle.remove()


def test_few_layers_are_tried_at_all_strengths(llm: ls.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = ls.read_pairs(ROOT / "configs/pairs.jsonl")
    assert searched(llm, pairs, reference_texts=TEXTS).grid.tried.all()
    monkeypatch.setattr("lightning_steer.workflows.trials.LEAST_LAYERS", 5)
    assert not searched(llm, pairs, reference_texts=TEXTS).grid.tried.all()
    assert searched(llm, pairs, reference_texts=TEXTS, full_grid=True).grid.tried.all()
