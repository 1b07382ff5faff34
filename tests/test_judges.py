"""Several judges of the same items, and labels on some of them."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from lightning_steer.outcomes import Judgement, judge
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.prediction_powered import FEWEST, corrected_change, interval
from lightning_steer.studies.coverage.cells import select
from lightning_steer.studies.coverage.verdicts import fault

N, STRENGTHS, CHANCES = 600, (0, 1, 2), (0.3, 0.5, 0.8)


def table(path: Path, labelled: int = 200, topic: bool = False) -> Path:
    """An honest judge, a judge that says yes too often the stronger the steering, and labels on some items."""
    draw = random.Random(3)
    with path.open("w") as file:
        file.write("item,setting,measure,judge,value" + (",cluster\n" if topic else "\n"))
        for i in range(N):
            end = f",t{i // 3}\n" if topic else "\n"
            for strength, chance in zip(STRENGTHS, CHANCES, strict=True):
                true = draw.random() < chance
                generous = true or draw.random() < 0.3 * strength
                file.write(
                    f"q{i},{strength},refused,honest,{true}{end}q{i},{strength},refused,generous,{generous}{end}"
                )
                if i % (N // labelled) == 0:
                    file.write(f"q{i},{strength},refused,human,{true}{end}")
    return path


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    return table(tmp_path / "outcomes.csv")


def only(judgement: Judgement, other: str):
    return next(comparison for comparison in judgement.judges if comparison.other == other)


def test_two_judges_of_the_effect(outcomes: Path) -> None:
    judgement = judge(outcomes, judge="honest")
    comparison = only(judgement, "generous")
    assert (comparison.measure, comparison.judge, comparison.n) == ("refused", "honest", N)
    assert [s.setting for s in comparison.settings] == ["1", "2"]
    strongest = comparison.settings[1]
    assert strongest.difference.high < 0
    assert strongest.difference.value == pytest.approx(strongest.change.value - strongest.other.value)
    assert strongest.same_score > 0.8
    assert strongest.changed_alike is not None
    assert 0.5 < strongest.changed_alike < 1
    assert "On the effect at 1, 2 the judges disagree" in str(judgement)
    assert "go by the scores of honest, right or wrong" in str(judgement)


@pytest.mark.parametrize("labelled_seed", [0, 1])
def test_seeds_of_two_judges_meet_by_their_names(tmp_path: Path, labelled_seed: int) -> None:
    """The human labels one of the judge's two seeds, with the very scores that the judge gave to that one."""
    draw, path = random.Random(5), tmp_path / "seeds.csv"
    with path.open("w") as file:
        file.write("item,seed,setting,measure,judge,value\n")
        for item, seed, strength in itertools.product(range(60), (0, 1), (0, 1)):
            value = draw.random() < 0.3 + 0.4 * strength
            for who in ("llm", "human") if seed == labelled_seed else ("llm",):
                file.write(f"q{item},{seed},{strength},refused,{who},{value}\n")
    (comparison,) = judge(path, judge="llm").judges
    assert comparison.n == 60
    assert comparison.settings[0].same_score == 1
    assert comparison.settings[0].changed_alike == 1
    assert comparison.settings[0].difference.value == 0


def test_judges_without_a_common_item_are_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "apart.csv"
    rows = [f"{who}{i},{s},refused,{who},{bool(i % 2)}" for who in ("a", "b") for i in range(9) for s in (0, 1)]
    path.write_text("item,setting,measure,judge,value\n" + "\n".join(rows) + "\n")
    judgement = judge(path, judge="a")
    assert judgement.judges == ()
    assert "a and b scored no item of refused in common" in str(judgement)


def test_the_judge_that_would_turn_the_verdict_is_named(outcomes: Path) -> None:
    judgement = judge(outcomes, "refused>=.5", judge="honest", split=1)
    assert judgement.choice.chosen is None
    assert ("generous", "2") in judgement.other_verdicts
    text = str(judgement)
    assert "If the scores of generous counted, the verdict would turn: setting 2 would be chosen." in text
    same = judge(outcomes, "refused>=.1", judge="honest", split=1)
    assert "If the scores of generous counted, the verdict would be the same." in str(same)
    turned = judge(outcomes, "refused>=.5", judge="generous", split=1)
    assert "verdict would turn: no setting would be certified" in str(turned)


def test_labels_correct_a_generous_judge(outcomes: Path) -> None:
    judgement = judge(outcomes, judge="generous", human="human")
    [measure] = judgement.labelled
    assert (measure.labelled, measure.n, measure.human) == (200, N, "human")
    strongest = measure.settings[1]
    assert strongest.judged.value > 0.55
    assert strongest.corrected.low < 0.5 < strongest.corrected.high
    assert 0 < strongest.weight <= 1
    assert strongest.corrected.high - strongest.corrected.low < strongest.labels.high - strongest.labels.low
    assert strongest.corrected.n == N
    assert "PPI++" in strongest.corrected.how
    assert [compared.other for compared in judgement.judges] == ["honest"]
    assert "a random sample of all" in str(judgement)


@pytest.mark.parametrize(("labelled", "topic"), [(60, False), (200, True)])
def test_few_labels_or_clusters_count_alone(labelled: int, topic: bool, tmp_path: Path) -> None:
    [measure] = judge(table(tmp_path / "x.csv", labelled, topic), judge="generous", human="human").labelled
    assert measure.clustered is topic
    assert [(s.weight, s.corrected) for s in measure.settings] == [(0.0, s.labels) for s in measure.settings]
    assert measure.settings[0].labels.n == labelled


def test_who_is_named(outcomes: Path) -> None:
    for settings, message in (
        ({}, "name the one to go by with --judge"),
        ({"judge": "honest", "human": "nobody"}, "'nobody'"),
        ({"judge": "human", "human": "human"}, "correct another judge"),
        ({"human": "human"}, "name the one to go by"),
    ):
        with pytest.raises(ValueError, match=message):
            judge(outcomes, **settings)


def test_a_perfect_judge_helps_and_a_blind_one_does_not() -> None:
    draws = np.random.default_rng(0)
    true = draws.choice([-1.0, 0.0, 1.0], 2000, p=[0.1, 0.6, 0.3])
    blind = draws.permutation(true)

    def width(estimate: Estimate) -> float:
        return estimate.high - estimate.low

    for judged, helps in ((true, True), (blind, False)):
        corrected = corrected_change(true[:300], judged[:300], judged[300:], 1.0, True)
        assert (width(corrected.corrected) < 0.75 * width(corrected.labels)) is helps
        assert width(corrected.corrected) < 1.1 * width(corrected.labels)
        assert corrected.corrected.low < true.mean() < corrected.corrected.high
    few = corrected_change(true[: FEWEST - 1], true[: FEWEST - 1], true[300:], 1.0, True)
    assert few.corrected == few.labels


def test_a_shift_of_the_judge_does_not_move_the_estimate() -> None:
    """Whatever constant a judge adds to every change is taken off again."""
    draws = np.random.default_rng(1)
    labels, judged, others = (draws.normal(size=(n, 1)) for n in (150, 150, 1000))
    judged += labels
    plain, weight = interval(labels, judged, others, 50.0, False)
    shifted, same = interval(labels, judged + 3, others + 3, 50.0, False)
    assert weight == pytest.approx(same)
    assert plain.value == pytest.approx(shifted.value)


def test_corrected_intervals_hold_and_are_narrower_where_the_judge_is_good() -> None:
    cells = select(["corrected by labels"])
    assert len(cells) == 81
    for cell in itertools.islice(cells, 0, None, 10):
        with_judge, alone = cell.run(400)
        assert not fault(with_judge), with_judge
        if "good judge" in cell.design and "gains 0.03" not in cell.design:
            assert with_judge["width"] < 0.95 * alone["width"], cell.design
