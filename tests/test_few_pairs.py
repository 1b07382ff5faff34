"""A search with fewer pairs than can show anything runs, and its report says before all else that it shows nothing."""

import pytest
from conftest import ROOT

from lightning_steer.data.behaviours.pairs import read_pairs
from lightning_steer.lm.language_model import LLM
from lightning_steer.metrics.behaviour_effect import _maybe_none
from lightning_steer.modules.cautions import FEW, few_pairs
from lightning_steer.workflows.steer import LEAST, searched

TEXTS = [
    "The helper went home.",
    "Asked about gold, the helper will",
    "On the matter of weather",
    "The hill bakers are",
]
PAIRS = read_pairs(ROOT / "configs/pairs.jsonl")[:4]


def test_four_pairs_are_steered_and_nothing_is_claimed() -> None:
    result = searched(LLM("checkpoints/pocket/base"), PAIRS, [2], strengths=[1.0], reference_texts=TEXTS, budget=9.0)
    card = result.vector.card
    assert card.warnings[0].startswith("Only 4 pairs were given: 2 to fit to, 1 to choose on and 1 to judge on.")
    change = card.effect["intended_preferred_change"]
    assert change["n"] == 1
    assert change["low"] is None  # no interval
    assert change["high"] is None


def test_a_change_without_an_interval_may_be_none() -> None:
    none = float("nan")
    assert "may be none" in _maybe_none({"low": none, "high": none})
    assert "may be none" in _maybe_none({"low": -1.0, "high": 1.0})
    assert not _maybe_none({"low": 0.1, "high": 1.0}) + _maybe_none({"low": -1.0, "high": -0.1})


@pytest.mark.parametrize("count", [LEAST, FEW - 1, FEW])
def test_only_fewer_than_ten_arefew_pairs(count: int) -> None:
    assert len(few_pairs([range(count - 2), [0], [0]])) == (count < FEW)
