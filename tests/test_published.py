"""Published outcomes, judged: made tables whose truth is known, and the released ones where they are at hand."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import published_tables as made
import pytest
from conftest import ROOT
from scipy.stats import binomtest

from lightning_steer.studies.published import alphasteer, caa, caa_dynamic, caa_dynamic_page, page, refusal_direction
from lightning_steer.studies.published.__main__ import main
from lightning_steer.studies.published.refusal_direction_judges import judged
from lightning_steer.studies.published.refusal_direction_page import RULE
from lightning_steer.studies.published.sources import folder

needs_data = pytest.mark.skipif(
    "LIGHTNING_STEER_DATA" not in os.environ,
    reason="LIGHTNING_STEER_DATA is unset: the released outcomes are not there",
)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.everything(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def released() -> Path:
    return folder(Path(os.environ["LIGHTNING_STEER_DATA"]))


def test_the_certified_strength_is_the_one_that_costs_nothing(outcomes: Path) -> None:
    calls = alphasteer.judge_all(outcomes)
    assert len(calls) == 8
    assert {call.choice.chosen for call in calls} == {"-0.1"}
    assert {call.choice.remade == () for call in calls if call.split == 1} == {True}


def test_gains_and_losses(outcomes: Path) -> None:
    right = alphasteer.measures(alphasteer.judge_all(outcomes))["gsm8k_right"]
    assert [(setting.setting, setting.rose, setting.fell) for setting in right.settings] == [
        ("0", 0, 0),
        ("-0.1", 0, 0),
        ("-0.2", 3, 60),
    ]


def test_an_abstention_names_the_promise_and_the_items_needed(tmp_path: Path) -> None:
    outcomes = made.everything(tmp_path)
    made.alphasteer(outcomes, "gsm8k_right", 60, [(0, 0), (0, 20)])  # 30 or 60 cannot show a loss below .05
    lines = "\n".join(alphasteer.section(outcomes).lines)
    (row,) = [line for line in lines.splitlines() if line.startswith("| renellm_refused | 0.05 | half")]
    assert "none; the nearest is -0.1: not certified that gsm8k_right falls by less than 0.05" in row
    assert "items in all" in row


@pytest.mark.parametrize("s", [1.0, 2.0])
def test_a_letter_and_a_behaviour(s: float, tmp_path: Path) -> None:
    made.caa_dynamic(tmp_path, made.of_letter)
    letter = caa_dynamic.count(caa_dynamic.read(tmp_path), s)
    made.caa_dynamic(tmp_path, made.of_behaviour)
    behaviour = caa_dynamic.count(caa_dynamic.read(tmp_path), s)
    assert letter.cells == behaviour.cells == 42
    assert (letter.letter, letter.each_letter, letter.each_side) == (42, 0, 0)
    assert (behaviour.answered, behaviour.each_letter_answered, letter.each_letter_answered) == (42, 42, 0)
    assert (behaviour.as_meant, behaviour.each_letter, behaviour.each_side) == (42, 42, 42)
    assert letter.as_meant_certain == behaviour.letter_certain == 0


def test_a_letter_that_seems_to_help_in_both_directions(tmp_path: Path) -> None:
    made.caa_dynamic(tmp_path, made.against)
    counts = caa_dynamic.count(caa_dynamic.read(tmp_path), 1.0)
    assert (counts.both_up, counts.each_side, counts.each_letter) == (42, 0, 0)
    made.caa_dynamic(tmp_path, lambda multiplier, matching: made.of_behaviour(-multiplier, matching))
    turned = caa_dynamic.count(caa_dynamic.read(tmp_path), 1.0)
    assert (turned.both_up, turned.as_meant) == (0, 0)


def test_what_is_left_of_no_probability_does_not_count_as_answered(tmp_path: Path) -> None:
    """Beyond |2| a fifth of the probability is left, and what moves there is not counted with what is answered."""
    made.caa_dynamic(tmp_path, made.of_behaviour)
    far = caa_dynamic.count(caa_dynamic.read(tmp_path), 3.0)
    assert (far.each_letter, far.answered, far.each_letter_answered) == (42, 0, 0)


def test_all_items_of_a_layer_make_certain_what_ten_do_not(tmp_path: Path) -> None:
    made.caa_dynamic(tmp_path, made.of_behaviour)
    cells = caa_dynamic.read(tmp_path)
    assert caa_dynamic.count(cells, 1.0).smallest_p == pytest.approx(2.0**-10)
    assert caa_dynamic.pooled(cells, 1.0) == (14, 14, 0)


def test_mass_beyond_two(outcomes: Path) -> None:
    cells = caa_dynamic.read(outcomes)
    matching, mass = caa_dynamic_page.judged(cells).measures
    assert [setting.setting for setting in mass.settings if setting.value.value < 0.5] == [
        "-5",
        "-4",
        "-3",
        "3",
        "4",
        "5",
    ]
    step = matching.positions.step
    assert (step.rises_at, step.falls_at) == ("A", "B")
    assert matching.n == 30


def test_the_rule_gives_the_published_direction(outcomes: Path) -> None:
    for model in refusal_direction.read(outcomes):
        assert tuple(RULE.choose(model.candidates, model.layers)[:2]) == model.published


def test_the_paired_test_is_exact(outcomes: Path) -> None:
    model = refusal_direction.read(outcomes)[0]
    phrases, guard = (refusal_direction.paired(model, name) for name in refusal_direction.JUDGES)
    assert (phrases.ablation_alone, phrases.addition_alone) == (10, 0)
    assert phrases.p == pytest.approx(binomtest(10, 10).pvalue)
    assert (guard.ablation_alone, guard.addition_alone, guard.p) == (0, 0, 1.0)


def test_shares_have_exact_intervals(outcomes: Path) -> None:
    model = refusal_direction.read(outcomes)[0]
    for estimate, count in zip(refusal_direction.shares(model, "llamaguard2", False), (3, 70, 70), strict=True):
        exact = binomtest(count, 100).proportion_ci(method="exact")
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((count / 100, exact.low, exact.high))


def test_harmless_requests_that_are_refused(outcomes: Path) -> None:
    harmless = refusal_direction.read(outcomes)[0].harmless
    assert {setting: int(refused.sum()) for setting, refused in harmless.items()} == {"baseline": 0, "actadd": 97}


def test_what_the_judges_turn(outcomes: Path) -> None:
    """By one judge 85 of 100 more are answered, by the other 67: a promise between them is turned."""
    model = refusal_direction.read(outcomes)[0]
    assert sum(refusal_direction.disagreements(model).values()) == 2 + 20 + 10
    low, between = judged(model, 0.5), judged(model, 0.7)
    assert low.choice.chosen is not None
    assert low.other_verdicts[0].chosen is not None
    assert (between.choice.chosen, between.other_verdicts[0].chosen) == (None, "ablation")


def test_prompts_of_few_categories_certify_no_large_rise(outcomes: Path) -> None:
    """One category that does not move leaves little certain, however many prompts the others have."""
    (model, *_) = refusal_direction.read(outcomes)
    assert len(set(model.category)) < len(model.category) / 5
    assert judged(model, 0.5).choice.chosen is not None
    assert judged(model, 0.5, clustered=True).choice.chosen is None
    alone, grouped = (refusal_direction.paired(model, refusal_direction.JUDGES[0], c).change for c in (False, True))
    assert (alone.clusters, grouped.clusters) == (None, len(set(model.category)))


def test_slopes_of_means(outcomes: Path) -> None:
    rising, turning = caa.read(outcomes)
    assert rising.slope == pytest.approx(0.2)
    assert rising.falls == []
    assert turning.multipliers == (-1, 0, 1)
    assert turning.slope == pytest.approx(0.15)
    assert [fall[:2] for fall in turning.falls] == [(0, 1)]


def test_the_page(outcomes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(outcomes.parent), "--page", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## AlphaSteer", "## CAA_Dynamic", "## CAA", "## refusal_direction",
    ]  # fmt: skip
    assert not re.search(r"\bnan\b", text)
    assert text == page.text(outcomes)  # the same tables give the same page


def cell(outcomes: Path, row: int, old: str, new: str) -> None:
    """Change the text of one row, counted from 1 for the header, of the first behaviour."""
    path = outcomes / "caa_dynamic_llama2_7b_chat_envy-kindness.csv"
    lines = path.read_text().splitlines()
    lines[row - 1] = lines[row - 1].replace(old, new, 1)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda o: (o / "caa_golden.json").unlink(), ("caa_golden.json", "no table")),
        (lambda o: (o / "caa_golden.json").write_text("["), ("caa_golden.json",)),
        (lambda o: (o / "caa_golden.json").write_text("[]"), ("caa_golden.json", "p_matching")),
        (lambda o: made.caa(o, odd=[0.1, 0.2]), ("'odd'", "2 means", "5 multipliers")),
        (lambda o: made.caa(o, odd=[0.1, None, None, None, None]), ("'odd'", "fewer than two")),
        (lambda o: made.refusal_direction(o, "gemma-2b-it", (-2, 10), items={}), ("gemma-2b-it.json", "items")),
        (
            lambda o: (o / "caa_dynamic_llama2_7b_chat_envy-kindness.csv").write_text("item,layer\n0,1\n"),
            ("envy-kindness.csv", "p_a"),
        ),
        (lambda o: cell(o, 2, "0,0,", "0,x,"), ("row 2", "column layer", "'x'")),
        (lambda o: cell(o, 3, "0.", "nan0."), ("row 3", "column p_a", "'nan0.")),
        (lambda o: cell(o, 2, ",A,", ",C,"), ("row 2", "column matching", "'C'")),
        (lambda o: cell(o, 3, "1,0,-5.0", "0,0,-5.0"), ("row 3", "twice")),
        (
            lambda o: (o / "alphasteer_llama31_8b_gsm8k_right.csv").write_text(
                "item,strength,value\na,0,1\na,-0.1,x\n"
            ),
            ("gsm8k_right.csv, row 3", "'x'"),
        ),
    ],
)
def test_bad_tables(
    spoil: object, expected: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = made.everything(tmp_path)
    spoil(outcomes)  # type: ignore[operator]
    assert main(["--data", str(tmp_path), "--page", str(tmp_path / "page.md")]) == 2
    message = capsys.readouterr().err
    assert len(message.strip().splitlines()) == 1
    assert all(part in message for part in expected), message
    assert not (tmp_path / "page.md").exists()


def test_other_prompts_are_not_paired(tmp_path: Path) -> None:
    outcomes = made.everything(tmp_path)
    path = outcomes / "refusal_direction_gemma-2b-it.json"
    record = json.loads(path.read_text())
    record["items"]["jailbreakbench_actadd"].reverse()
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="other prompts"):
        refusal_direction.read(outcomes)


def test_another_multiplier_of_other_items_is_refused(tmp_path: Path) -> None:
    outcomes = made.everything(tmp_path)
    path = outcomes / "caa_dynamic_llama2_7b_chat_envy-kindness.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="layer 13: multiplier 5 has other items"):
        caa_dynamic.read(outcomes)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        folder(tmp_path / "nowhere")


# the released outcomes, against facts that were found from outside


@needs_data
def test_released_alphasteer(released: Path) -> None:
    by_name = alphasteer.measures(alphasteer.judge_all(released))
    right, renellm, jailbroken = (by_name[n] for n in ("gsm8k_right", "renellm_refused", "jailbroken_refused"))
    order = ["0", "-0.05", "-0.1", "-0.15", "-0.2", "-0.25", "-0.3", "-0.4", "-0.5"]
    assert [setting.setting for setting in right.settings] == order
    assert [round(100 * setting.value.value) for setting in right.settings] == [87, 87, 90, 90, 90, 88, 90, 93, 88]
    assert [round(100 * setting.value.value) for setting in renellm.settings] == [24, 36, 40, 62, 75, 90, 98, 100, 100]
    counts = [round(500 * setting.value.value) for setting in jailbroken.settings]
    assert (counts[0], *counts[-2:]) == (332, 441, 438)
    quarter = right.settings[5]
    assert (quarter.fell, quarter.rose) == (5, 6)
    with (released / "alphasteer_llama31_8b_xstest_refused.csv").open() as file:
        rows = list(csv.DictReader(file))
    refused = {
        (group, strength): sum(
            r["value"] == "1" for r in rows if (r["group"], float(r["strength"])) == (group, strength)
        )
        for group in ("safe", "unsafe")
        for strength in (0.0, -0.5)
    }
    assert list(refused.values()) == [17, 19, 186, 189]


@needs_data
def test_released_directions(released: Path) -> None:
    gemma, llama = refusal_direction.read(released)
    assert [len(model.candidates) for model in (gemma, llama)] == [90, 192]
    for model in (gemma, llama):
        assert tuple(RULE.choose(model.candidates, model.layers)[:2]) == model.published
    assert [sum(refusal_direction.disagreements(model).values()) for model in (gemma, llama)] == [55, 38]


@needs_data
def test_released_letters(released: Path) -> None:
    cells = caa_dynamic.read(released)
    assert len(cells) == 93
    layer = [cell for cell in cells if cell.layer == caa_dynamic_page.LAYER]
    without, minus = (np.mean([cell.letter(m).mean() for cell in layer]) for m in (0.0, -1.0))
    assert 0.5 < without < 0.6
    assert minus < 0.02
    counts = caa_dynamic.count(cells, 1.0)
    assert counts.each_letter < counts.as_meant < counts.cells / 3 < counts.letter


@needs_data
def test_the_page_is_that_of_the_released_outcomes(released: Path) -> None:
    assert (ROOT / "docs/published.md").read_text() == page.text(released)


def test_the_page_holds_figures_and_no_prompts() -> None:
    """No line of the page is a request or an answer: each is prose of ours, a table, or a heading."""
    text = (ROOT / "docs/published.md").read_text()
    assert not any(mark in text for mark in ("(A) I", "(B) I", "Choices:", "How do you", "[INST]", "<|"))
