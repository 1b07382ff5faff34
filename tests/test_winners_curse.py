"""The held-out interval of what a search chose holds the truth; that of the rows that chose does not."""

from pathlib import Path

import pytest
import torch
from conftest import ROOT

from lightning_steer.selection.grid import Grid, Setting
from lightning_steer.studies.coverage.verdicts import LEAST, upper
from lightning_steer.studies.search.__main__ import main
from lightning_steer.studies.search.resampled import JudgedIntervals, coverage
from lightning_steer.studies.search.tables import SettingsTable, table
from lightning_steer.workflows.fit import backbone

REPETITIONS = 400


def fails(judged: JudgedIntervals) -> bool:
    """The rule: a cell fails if the 99 % interval of its coverage lies wholly below .93."""
    return upper(judged.holds, judged.sets) < LEAST


@pytest.mark.parametrize("rows", [12, 30])
def test_the_held_out_interval_holds_where_every_candidate_is_alike(rows: int) -> None:
    """65 settings of one true effect: the best of them on the rows that choose is the luckiest."""
    effects = torch.randn(5000, 5, 13, generator=torch.Generator().manual_seed(0)).double()
    effects += 1 - effects.mean(0)  # the table is the population
    result = coverage(effects, torch.zeros(5, 13), 0.1, rows, REPETITIONS)
    assert not fails(result.held_out)
    assert abs(result.held_out.bias) < 0.05
    assert fails(result.choosing)
    assert result.choosing.bias > 0.3
    assert result.settings > 50


def test_what_breaks_the_budget_is_not_chosen() -> None:
    effects = torch.ones(50, 2, 2, dtype=torch.float64) * torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    damage = torch.tensor([[0.0, 0.05], [0.2, torch.inf]])
    assert coverage(effects, damage, 0.1, 12, 20).settings == 1
    with pytest.raises(ValueError, match=r"nothing may be chosen within the budget of 0\.001"):
        coverage(effects, damage + 0.01, 0.001, 12, 20)


def test_the_held_out_interval_holds_on_a_pocket_model() -> None:
    """One table of a model, resampled: 1,000 repetitions of 18 tables are the study."""
    made = table(backbone(str(ROOT / "checkpoints/pocket/base"), [3, 4]), "truthful", 1, 0)
    assert made.chosen is not None
    assert made.share_of_best > 0.9
    assert float((made.true_damage - made.full.damage)[made.full.damage < 0.2].abs().max()) < 0.1
    assert not torch.equal(made.true_damage, made.full.damage)
    margin = made.effects["margin_change"]
    assert margin.shape == (200, 2, 13)
    damage = torch.where(made.whole, made.full.damage, torch.inf)
    for column, effects in made.effects.items():
        result = coverage(effects, damage, 0.1, 12, REPETITIONS, column=column, chosen_by=margin)
        assert not fails(result.held_out), (column, result)


def test_the_study_writes_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(0)
    effects = {"margin_change": torch.rand(50, 2, 3, generator=random).double() + torch.arange(3)}
    effects["preference_change"] = torch.zeros(50, 2, 3, dtype=torch.float64)
    grid = Grid([3, 4], [1.0, 2.0, 3.0], effects["margin_change"].mean(0), torch.tensor([[0.0, 0.05, 0.2]] * 2), 9)
    made = SettingsTable(grid, Setting(0, 1), torch.ones(2, 3, dtype=torch.bool), effects, grid.damage)
    monkeypatch.setattr("lightning_steer.studies.search.__main__.table", lambda *_: made)
    argv = ["--models", str(ROOT / "checkpoints/pocket/base"), "--seeds", "1", "--rows", "12", "--repetitions", "50"]
    assert main([*argv, "--out", str(tmp_path / "search.md")]) == 0
    text = (tmp_path / "search.md").read_text()
    assert text.count("| 9 | layer 3, strength 2 | ") == 3  # a behaviour each
    assert text.count("| margin_change |") == 3
    assert "of 3 searches" in capsys.readouterr().out
    assert made.share_of_best == pytest.approx(float(grid.effect[0, 1] / grid.effect[:, 1].max()))
    strict = made._replace(
        true_damage=torch.tensor([[0.0, 0.2, 0.0]] * 2)
    )  # others may be taken than the search thought
    assert strict.share_of_best == pytest.approx(float(grid.effect[0, 1] / grid.effect[:, [0, 2]].max()))
