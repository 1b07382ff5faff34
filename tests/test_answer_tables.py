"""Multiple-choice answers: probability that leaves them, and whether steering moves a letter or the behaviour."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightning_steer.outcomes import judge
from lightning_steer.outcomes.__main__ import main

STRENGTHS = (-2, -1, 0, 1, 2)


def answers(path: Path, p_a: Callable[[float, str], tuple[float, float]], n: int = 40) -> Path:
    """Write a table of answers: half of the items have their matching answer at A."""
    lines = ["item,strength,matching,p_a,p_b"]
    for i in range(n):
        letter = "AB"[i % 2]
        for strength in STRENGTHS:
            first, second = p_a(strength, letter)
            lines.append(f"q{i},{strength},{letter},{first:.6f},{second:.6f}")
    path.write_text("\n".join(lines) + "\n")
    return path


def letter(strength: float, letter: str) -> tuple[float, float]:
    """A vector for the letter A, whichever answer shows the behaviour."""
    a = 0.5 + 0.2 * strength
    return 0.98 * a, 0.98 * (1 - a)


def behaviour(strength: float, letter: str) -> tuple[float, float]:
    shown = 0.5 + 0.2 * strength
    a = shown if letter == "A" else 1 - shown
    return 0.98 * a, 0.98 * (1 - a)


def test_a_vector_for_a_letter_is_told_from_one_for_the_behaviour(tmp_path: Path) -> None:
    of_letter = judge(answers(tmp_path / "x.csv", letter))
    step = of_letter.measures[0].positions.step
    assert (step.start, step.end, step.rises_at, step.falls_at) == ("-2", "2", "A", "B")
    assert step.p < 0.05
    assert "moves the place, not matching" in str(of_letter)
    of_behaviour = judge(answers(tmp_path / "y.csv", behaviour))
    assert of_behaviour.measures[0].positions.step is None
    assert of_behaviour.measures[0].shape.monotone
    assert "moves the place" not in str(of_behaviour)


def test_changes_by_place(tmp_path: Path) -> None:
    changes = judge(answers(tmp_path / "x.csv", letter)).measures[0].positions.changes
    assert list(changes["1"]) == ["A", "B"]
    assert {name: round(change.value, 4) for name, change in changes["1"].items()} == {"A": 0.2, "B": -0.2}
    assert {change.n for change in changes["1"].values()} == {20}


def test_no_step_is_found_where_nothing_changes_but_noise(tmp_path: Path) -> None:
    """The claim is false in at most .05 of tables: of 60, more than 8 have a chance below .005."""
    false = 0
    for seed in range(60):
        random = np.random.default_rng(seed)

        def noise(strength: float, letter: str, random: np.random.Generator = random) -> tuple[float, float]:
            a = float(random.beta(0.5, 0.5))
            return 0.99 * a, 0.99 * (1 - a)

        false += judge(answers(tmp_path / "x.csv", noise, 24)).measures[0].positions.step is not None
    assert false <= 8


def test_probability_that_leaves_the_answers(tmp_path: Path) -> None:
    def leaves(strength: float, letter: str) -> tuple[float, float]:
        mass = 0.98 if abs(strength) < 2 else 0.3
        return 0.6 * mass, 0.4 * mass

    judgement = judge(answers(tmp_path / "x.csv", leaves))
    matching, mass = judgement.measures
    assert [(measure.name, measure.low, measure.high) for measure in judgement.measures] == [
        ("matching", 0, 1),
        ("answer_mass", 0, 1),
    ]
    assert [round(setting.value.value, 4) for setting in mass.settings] == [0.3, 0.98, 0.98, 0.98, 0.3]
    assert {round(setting.change.value, 9) for setting in matching.settings} == {0.0}  # of what is left, nothing moved
    assert mass.positions is None
    assert mass.same_both_ways == ()  # both signs lower it, but nobody looks for a direction of it
    (note,) = [note for note in judgement.notes if "all answers together" in note]
    assert "At -2, 2 more than half" in note


def test_a_place_in_any_table(tmp_path: Path) -> None:
    """True and false with a column ``position``: the exact sign test of pairs."""
    lines = ["item,setting,value,position"]
    for i in range(40):
        lines += [f"q{i},0,{i % 4 < 2},{'AB'[i % 2]}", f"q{i},1,{i % 2 == 0},{'AB'[i % 2]}"]
    (tmp_path / "chosen.csv").write_text("\n".join(lines) + "\n")
    (measure,) = judge(tmp_path / "chosen.csv").measures
    assert measure.positions.step.p == 2 * 2.0**-10  # ten items of either place changed, and there are two claims
    assert {name: change.value for name, change in measure.positions.changes["1"].items()} == {"A": 0.5, "B": -0.5}


def test_every_form_says_it(tmp_path: Path) -> None:
    judgement = judge(f"survey={answers(tmp_path / 'x.csv', letter)}")
    for name in ("j.html", "j.md", "j.json"):
        judgement.save(tmp_path / name)
        text = (tmp_path / name).read_text()
        assert "survey_answer_mass" in text
    assert "where the answer is A" in (tmp_path / "j.html").read_text()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("q0,0,C,.5,.4", ("column matching", "'C'", "a, b")),
        ("q0,0,,.5,.4", ("column matching", "''")),
        ("q0,0,A,1.5,.4", ("column p_a", "'1.5'", "between 0 and 1")),
        ("q0,0,A,-.1,.4", ("column p_a", "'-.1'")),
        ("q0,0,A,true,.4", ("column p_a", "'true'")),
        ("q0,0,A,nan,.4", ("column p_a", "'nan'")),
        ("q0,0,A,.5,", ("column p_b", "empty")),
        ("q0,0,A,.7,.7", ("sum to 1.4",)),
        ("q0,0,A,0,0", ("probability 0", "leave this setting out")),
        ("q0,0,A,.5", ("4 cells", "5 columns")),
        ("q0,0,A,=1/2,.5", ("column p_a", "'=1/2'")),
    ],
)
def test_bad_answers(row: str, expected: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"item,strength,matching,p_a,p_b\nq1,0,A,.5,.4\n{row}\n")
    assert main([str(path), "--json", str(tmp_path / "j.json")]) == 2
    message = capsys.readouterr().err
    assert len(message.strip().splitlines()) == 1
    assert all(part in message for part in ("row 3", *expected)), message
    assert not (tmp_path / "j.json").exists()


def test_an_item_with_two_places(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("item,strength,matching,p_a,p_b\nq1,0,A,.5,.4\nq1,1,B,.5,.4\n")
    with pytest.raises(ValueError, match=r"row 3, column position.*'B'.*'A'"):
        judge(path)


def test_the_rounding_of_a_sum_is_no_change(tmp_path: Path) -> None:
    """Both answers have .96 together at every strength, in floating-point numbers nearly so."""

    def rounded(strength: float, letter: str) -> tuple[float, float]:
        return (0.5, 0.46) if not strength else (0.03, 0.93)

    assert sum(rounded(1, "A")) != sum(rounded(0, "A"))
    [mass] = [
        measure for measure in judge(answers(tmp_path / "x.csv", rounded)).measures if measure.name == "answer_mass"
    ]
    assert [(setting.rose, setting.fell) for setting in mass.settings] == [(0, 0)] * len(STRENGTHS)
    assert {round(setting.value.value, 9) for setting in mass.settings} == {0.96}
