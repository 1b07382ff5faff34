"""Ranks among random directions know what is good, and what certifies says of what."""

import math
from typing import ClassVar

import numpy as np
import pytest
import torch

from lightning_steer.metrics.answers import Answers
from lightning_steer.metrics.attributes import AttributeEffect
from lightning_steer.metrics.behaviour_effect import BehaviourEffect
from lightning_steer.metrics.evaluation import ChangeRange
from lightning_steer.metrics.stereoset_effect import StereoSetEffect
from lightning_steer.modules.figures import random_range
from lightning_steer.modules.summary import Summary
from lightning_steer.report.card import random_row
from lightning_steer.report.html import _certified
from lightning_steer.report.shape import check
from lightning_steer.report.tables import cell, footnotes
from lightning_steer.selection.rule import Certified
from lightning_steer.statistics.certificates import certify


@pytest.mark.parametrize("evaluation", [Answers, AttributeEffect, BehaviourEffect, StereoSetEffect])
def test_every_column_of_every_table_says_which_direction_is_wanted(evaluation) -> None:
    assert set(evaluation.headline) <= evaluation.higher_is_better.keys()


def test_drift_lower_than_that_of_every_random_direction_is_the_best_rank() -> None:
    draws = [0.1 + i / 100 for i in range(20)]
    assert random_range(draws, 0.01, AttributeEffect.higher_is_better["drift_kl"])["p"] == pytest.approx(1 / 21)
    assert random_range(draws, 0.9, AttributeEffect.higher_is_better["drift_kl"])["p"] == 1
    assert random_range(draws, 0.9, Answers.higher_is_better["accuracy"])["p"] == pytest.approx(1 / 21)


def test_a_column_without_a_direction_is_refused() -> None:
    class Silent(AttributeEffect):
        higher_is_better: ClassVar = {"target_accuracy": True}

    rows = {
        name: torch.rand(30, 4)
        for name in ("target_accuracy", "target_unchanged", "off_target_accuracy", "exact_match", "drift_kl")
    }
    tested = {f"random_control/{name}": column.round() for name, column in rows.items()} | {"cluster": torch.arange(30)}
    summary = Summary(tested, {}, Silent(), {})
    with pytest.raises(ValueError, match="'target_unchanged' of Silent does not say which direction is wanted"):
        summary.random(summary.estimates(summary.tested, "random_control"))


def test_the_footnote_names_what_is_good_and_what_has_no_p() -> None:
    draws = np.arange(20.0)
    columns = {"accuracy": True, "error": False, "margin": None}
    random = {name: random_range(draws, 1.0, better) for name, better in columns.items()}
    footnote = random_row({"baselines": {"random_control": random}})
    assert "draws at least as good" in footnote
    assert "high accuracy and low error; no p for margin" in footnote
    assert cell(random["error"]) == "9.500 (0.000 to 19.000; p 0.143)"
    assert cell(random["margin"]) == "9.500 (0.000 to 19.000)"  # never as an interval
    assert footnotes([random]) == []
    old = {
        name: {key: control[key] for key in control if key != "higher_is_better"} for name, control in random.items()
    }
    assert "high accuracy, error, margin." in random_row({"baselines": {"random_control": old}})


def test_after_a_search_random_directions_have_a_range_and_no_p() -> None:
    random = {"margin": random_range(np.arange(20.0), 30.0, True, searched=True)}
    assert cell(random["margin"]) == "9.500 (0.000 to 19.000)"
    footnote = random_row({"searched": True, "baselines": {"random_control": random}})
    assert "No rank p-value: the setting was chosen for the vector and not for them" in footnote
    assert "(1 + draws" not in footnote


def test_a_direction_that_is_none_is_refused_in_a_report() -> None:
    figure = {"value": 0.0, "low": 0.0, "high": 0.0, "n": 2, "higher_is_better": "up"}
    report = {"experiment": "e", "task": "t", "backbone": "b", "method": "m", "run": "r", "seed": 0}
    with pytest.raises(ValueError, match="higher_is_better is 'up'"):
        check({**report, "metrics": {"accuracy": figure}})


def test_the_certificate_says_in_its_own_sentence_that_it_is_of_clusters() -> None:
    cluster = torch.arange(400) // 2
    base, after = (
        torch.zeros(400).double(),
        (torch.rand(200, generator=torch.Generator().manual_seed(0)) < 0.6).double(),
    )
    after = after[cluster]
    choice = Certified().choose([1.0], base, after[:, None], after[:, None], ChangeRange(-1, 1, True), cluster)
    assert choice.index == 0
    assert choice.clusters == 200
    assert "improves the mean over 200 clusters, each counting once, by more than" in choice.reason
    bound = {
        "value": choice.bound,
        "low": choice.bound,
        "high": None,
        "n": 400,
        "clusters": choice.clusters,
        "how": "x",
    }
    assert "Certified: the mean over 200 clusters, each counting once, improves by more than" in _certified(bound)
    rows = certify(np.ones((1, 100), dtype=int), -1, 1)
    assert "clusters" not in rows.reason
    assert "clusters" not in _certified({**bound, "clusters": None})
    assert math.isfinite(choice.bound)
