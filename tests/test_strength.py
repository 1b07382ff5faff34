"""Choosing a strength, and reading thresholds off a curve."""

import math

import torch
from reweighted import bootstrap_weights

from lightning_steer.selection.rule import Best
from lightning_steer.selection.strength import FEW, choose, crossing


def test_few_rows_choose_by_the_loss() -> None:
    success = torch.tensor([[1.0, 0.0]] * (FEW - 1))
    loss = torch.tensor([[2.0, 1.0]] * (FEW - 1))
    assert choose(success, loss) == 1


def test_many_rows_choose_by_success_and_break_ties_by_the_loss() -> None:
    success = torch.tensor([[0.0, 1.0, 1.0]] * FEW)
    loss = torch.tensor([[0.0, 2.0, 1.0]] * FEW)
    assert choose(success, loss) == 2
    success[0, 2] = 0
    assert choose(success, loss) == 1


def test_choosing_again_on_every_resample_is_choosing_row_by_row() -> None:
    g = torch.Generator().manual_seed(0)
    success, loss = (torch.rand(40, 5, generator=g) < 0.5).float(), torch.rand(40, 5, generator=g)
    weights = bootstrap_weights(40, 50)
    expected = []
    for weight in weights:
        drawn = torch.repeat_interleave(torch.arange(40), weight.long())
        expected.append(int(choose(success[drawn], loss[drawn])))
    assert choose(success, loss, weights).tolist() == expected


def test_crossing() -> None:
    assert crossing([0.0, 1.0, 2.0], [0.0, 0.2, 1.0]) == 1 + 0.3 / 0.8
    assert crossing([0.5, 1.0], [0.7, 0.9]) == 0.5
    assert math.isinf(crossing([0.0, 1.0], [0.0, 0.4]))


def test_one_row_tells_nothing_about_the_strength_for_others() -> None:
    choice = Best(100).choose([0.5, 1.0, 2.0], torch.zeros(1), torch.ones(1, 3), torch.tensor([[2.0, 1.0, 3.0]]))
    assert choice.index == 1
    assert math.isnan(choice.low)  # no range: re-sampled it is always itself
    assert math.isnan(choice.high)
    assert "a single row" in choice.reason
