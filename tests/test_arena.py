"""The arena: its quick form runs, resumes and writes a page; and what it computes from its numbers."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lightning_steer.methods import LEACE, Ablation, KSteering, MeanDifference
from lightning_steer.records import Activations
from lightning_steer.selection.grid import Grid
from lightning_steer.studies.arena import cost, declared, language, study, summary, tasks, toy
from lightning_steer.studies.arena.entrants import DRAWS, NOT_COMPETING, RANDOM, entrants
from lightning_steer.studies.arena.summary import Unit

ROOT = Path(__file__).parents[1]


def arguments(folder: Path, *more: str) -> list[str]:
    return ["--quick", "--processes", "1", "--out", str(folder / "out"), "--page", str(folder / "page.md"),
            "--log", str(folder / "opened.jsonl"), "--networks-in", str(folder / "toys"), *more]  # fmt: skip


def test_quick_form_runs_resumes_and_writes_its_page(tmp_path: Path) -> None:
    command = arguments(tmp_path, "--methods", "ablation", "learned_vector")
    assert study.main(command) == 0
    page = (tmp_path / "page.md").read_text()
    assert (tmp_path / "figures/arena.png").is_file()
    rows = [line for line in page.split("\n") if line.startswith("| ")]
    listed = {line.split(" | ")[0].removeprefix("| ") for line in rows}
    assert {"mean difference", "random direction", "ablation", "learned vector", "prompt"} <= listed
    paths = sorted((tmp_path / "out/parts").glob("*.json"))
    assert len(paths) == 3
    marked = json.loads(paths[0].read_text()) | {"processor_seconds": 1234.5}
    paths[0].write_text(json.dumps(marked))
    assert study.main(command) == 0  # a part with these settings is kept
    assert json.loads(paths[0].read_text())["processor_seconds"] == 1234.5
    paths[0].write_text(json.dumps(marked | {"settings": {}}))
    assert study.main([*command, "--only", paths[0].stem]) == 0  # one with others is made anew
    assert json.loads(paths[0].read_text())["processor_seconds"] != 1234.5


@pytest.mark.slow
def test_all_methods_in_the_quick_form_with_the_seeds_that_are_kept_back(tmp_path: Path) -> None:
    assert study.main(arguments(tmp_path, "--verdict")) == 0
    assert "## Verdicts" not in (tmp_path / "page.md").read_text()  # one task is too few for any
    openings = [json.loads(line) for line in (tmp_path / "opened.jsonl").read_text().split("\n") if line]
    assert [entry["declaration"] for entry in openings] == [declared.DECLARATION.digest(), declared.AGAIN.digest()]


def test_verdicts_find_a_lead_that_is_there_and_none_that_is_not() -> None:
    random = np.random.default_rng(1)
    names = {name for pair in declared.PAIRS.values() for name in pair}
    units = [unit(str(i), **{name: float(random.normal()) for name in sorted(names)}) for i in range(10)]
    leads = [u._replace(effect={**u.effect, "learned_vector": u.effect["mean_difference"] + 2 + 0.1 * i})
             for i, u in enumerate(units)]  # fmt: skip
    shown = declared.findings(declared.EFFECT, declared.results(leads))
    assert "a learned vector above the mean difference: 2.45 (2.00 to 2.90) sd, shown" in shown
    assert shown.count(", shown") == 1
    assert not declared.enough(units[:4])


def test_every_file_of_a_method_competes() -> None:
    files = {path.stem for path in (ROOT / "configs/methods").glob("*.yaml")} - {*NOT_COMPETING}
    listed = entrants()
    assert {entrant.name.split(" ")[0] for entrant in listed} == files
    assert len(listed) == len(files) + DRAWS - 1
    assert len({entrant.make(4).seed for entrant in listed if entrant.name.startswith(RANDOM)}) == DRAWS  # type: ignore[attr-defined]
    for entrant in listed:
        low, high = entrant.make(8).strength_range
        assert all(low <= strength <= high for strength in entrant.strengths)
    assert {*declared.NAMES, *declared.MANY} <= {entrant.name for entrant in listed}


@pytest.mark.parametrize("task", tasks.LANGUAGE)
def test_pairs_of_a_task(task: str) -> None:
    rows = tasks.pairs(task, 0, 60)
    assert rows == tasks.pairs(task, 0, 60)
    assert rows != tasks.pairs(task, 1, 60)
    assert len(set(rows)) == len(rows) >= 40
    assert all(pair.positive != pair.negative for pair in rows)


def test_equal_damage_and_equal_effect_on_a_curve() -> None:
    curve = [(0.0, 0.0), (1.0, 0.05), (3.0, 0.15), (2.0, None)]
    assert summary.at_damage(curve, 0.1) == pytest.approx(2.0)
    assert summary.at_damage(curve, 0.01) == pytest.approx(0.2)
    assert summary.at_damage(curve[:2], 0.1) == 1.0  # what was tried stays within the budget
    assert summary.at_damage(curve, 1.0) == 3.0  # infinite damage has no effect that counts
    assert summary.damage_at(curve, 2.0) == pytest.approx(0.1)
    assert summary.damage_at(curve, 4.0) == math.inf


def unit(cluster: str, **effect: float) -> Unit:
    return Unit("language-base", cluster, effect, effect, effect, effect, effect, {})


def test_ranks_are_paired_and_ties_share_their_mean() -> None:
    assert summary.ranks(np.array([[3.0, 1.0, 1.0], [0.0, 5.0, 2.0]])).tolist() == [[1, 2.5, 2.5], [3, 1, 2]]
    random = np.random.default_rng(0)
    units = [unit(str(i), a=x + 1, b=x, mean_difference=x) for i, x in enumerate(random.normal(0, 9, 12))]
    leads = summary.over_reference(units, ["a", "b"])
    assert leads["a"].value == pytest.approx(1)
    assert leads["b"].value == 0
    noisy = [
        u._replace(effect={**u.effect, "a": u.effect["a"] + e})
        for u, e in zip(units, random.normal(0, 0.1, 12), strict=True)
    ]
    lead = summary.over_reference(noisy, ["a"])["a"]
    assert 0.8 < lead.low < lead.high < 1.2  # the cells' own spread of 9 is gone: it is paired


def test_clusters_are_tasks_so_repeats_of_one_add_nothing() -> None:
    few = [unit(str(i), a=float(i), mean_difference=0.0) for i in range(12)]
    once, thrice = (summary.means(units, ["a"])["a"] for units in (few, few * 3))
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.02)


def test_pairs_needed() -> None:
    sizes = {
        16: {"a": 0.5, "b": 0.85, "c": 0.01},
        64: {"a": 0.9, "b": 0.9, "c": 0.02},
        256: {"a": 1.0, "b": 0.9, "c": 0.02},
    }
    units = [unit("x")._replace(sizes=sizes)] * 2
    assert [summary.pairs_needed(units, name) for name in "abc"] == [64, 16, None]


def test_strengths_near_the_budget() -> None:
    damage = torch.tensor([[0.01, 0.04, 0.4], [0.01, 0.02, 0.03]], dtype=torch.float64)
    grid = Grid([1, 3], [1.0, 2.0, 5.0], damage, damage, 9)
    assert language.nearer(grid, 0) == [3.0, 4.0]
    assert language.nearer(grid, 1) == []  # all that was tried is within the budget
    assert toy.nearer([1.0, 2.0, 5.0], [0.01, 0.04, 0.4]) == [3.0, 4.0]


def test_forms() -> None:
    h = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    seen = Activations(h, (torch.arange(40) % 2).float(), (torch.arange(40) % 2).view(-1, 1), False)
    forms = {kind: cost.form(kind(6).fit(seen)) for kind in (MeanDifference, LEACE, Ablation, KSteering)}
    assert forms == {MeanDifference: "vector", LEACE: "affine", Ablation: "affine", KSteering: "curved"}


def test_a_method_that_plants_its_effect_wins_the_toy(tmp_path: Path) -> None:
    scale = toy.QUICK._replace(train_share=0.3, pairs=32, select=32, test=64)
    cell = toy.CELLS[2]._replace(network=toy.shorter(toy.CELLS[2].network, scale.train_share))
    listed = [entrant for entrant in entrants() if entrant.name in ("mean_difference", f"{RANDOM} 1")]
    part = toy.run(cell, (0,), scale, listed, tmp_path)
    effect = {name: float(np.mean(of["effect"])) for name, of in part["methods"].items()}
    assert effect["mean_difference"] > effect[f"{RANDOM} 1"] + 0.3
    assert np.max(part["methods"]["mean_difference"]["damage"]) < 4 * language.BUDGET


def test_the_toys_choice_stays_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    row = torch.tensor([[[0.2, 0.5, 0.9]]])
    seen = toy.Curve(row, row, torch.tensor([[[0.0, 0.05, 0.5]]]))
    monkeypatch.setattr(toy, "searched", lambda *_: (torch.tensor([[[1.0, 2.0, 3.0]]]), seen))
    world: Any = SimpleNamespace(
        fitted=lambda *_: MeanDifference(4),
        select=SimpleNamespace(h=torch.zeros(1, 1, 2, 4)),
        test=None,
        curve=lambda *_: seen,
    )
    (entrant,) = [entrant for entrant in entrants() if entrant.name == "mean_difference"]
    assert toy.outcome(world, entrant, 8)["effect"] == [[pytest.approx(0.5)]]


@pytest.mark.parametrize("prefix", ["", "verdict-", "again-"])
def test_a_cell_belongs_to_its_task(prefix: str, tmp_path: Path) -> None:
    method = {"effect": 1.0, "preferred": 0.5, "damage": 0.1, "curve": [[1.0, 1.0, 0.1]]}
    part = {"spread": 2.0, "methods": {"mean_difference": method}, "sizes": {}}
    (tmp_path / "parts").mkdir()
    for task, seed in (("town", 1), ("sms_spam", 1), ("town", 2)):
        (tmp_path / "parts" / f"{prefix}language-base-{task}-{seed}.json").write_text(json.dumps(part))
    units, _ = summary.read(tmp_path, prefix)
    assert [u.cluster for u in units] == ["sms_spam", "town", "town"]
    assert units[0].effect == {"mean_difference": 0.5}  # in standard deviations
