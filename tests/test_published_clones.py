"""Tables of outcomes from clones of repositories: figures and verdicts go in, prompts and answers do not."""

import json
import math
from pathlib import Path

import numpy as np
import published_tables as made
import pytest

import lightning_steer as ls
from lightning_steer.studies.published import alphasteer_clone, caa, caa_dynamic, refusal_direction
from lightning_steer.studies.published.clones import main

SECRET = "a prompt that must not be copied"
LAYERS, ITEMS = 2, 4


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def clones(tmp_path: Path) -> Path:
    """Both repositories in their own layout, from the made tables."""
    folder = tmp_path / "clones"
    for behaviour in made.BEHAVIOURS:
        results = folder / "CAA_Dynamic" / "results" / behaviour
        for layer in range(LAYERS):
            for multiplier in (-1.0, 0.0, 1.0):
                rows = []
                for i in range(ITEMS):
                    matching = "AB"[i % 2]
                    a = made.of_letter(multiplier + layer / 10, matching)
                    rows.append({"question": SECRET, "answer_matching_behavior": f"({matching})",
                                 "answer_not_matching_behavior": "(X)", "a_prob": a, "b_prob": 1 - a})  # fmt: skip
                name = f"results_layer={layer}_multiplier={multiplier}_behavior={behaviour}_type=ab_use_base_model="
                write(results / f"{name}False_model_size=7b.json", rows)
                for other in ("True_model_size=7b", "False_model_size=8b", "False_model_size=7b_weighted_vector=True"):
                    write(results / f"{name}{other}.json", [])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for model, chosen in (("gemma-2b-it", (-2, 10)), ("llama-2-7b-chat-hf", (-1, 14))):
        record = made.refusal_direction(scratch, model, chosen)
        run = folder / "refusal_direction" / "pipeline" / "runs" / model
        write(run / "direction_metadata.json", record["chosen"])
        write(run / "select_direction" / "direction_evaluations.json", record["candidates"])
        for prompts, verdicts in record["items"].items():
            rows = [{**row, "prompt": SECRET, "response": SECRET} for row in verdicts]
            write(run / "completions" / f"{prompts}_evaluations.json", {"completions": rows})
        for setting, losses in record["loss"].items():
            write(run / "loss_evals" / f"{setting}_loss_eval.json", losses)
    return folder


def test_tables_from_clones(clones: Path, tmp_path: Path) -> None:
    out = tmp_path / "outcomes"
    assert main([str(clones), str(out)]) == 0
    assert not [path.name for path in out.iterdir() if SECRET in path.read_text()]
    cells = caa_dynamic.read(out)
    assert [(cell.behaviour, cell.layer) for cell in cells] == [(b, i) for b in made.BEHAVIOURS for i in range(LAYERS)]
    for cell in cells:
        assert cell.at_a.tolist() == [True, False] * (ITEMS // 2)
        for multiplier in (-1.0, 0.0, 1.0):
            expected = made.of_letter(multiplier + cell.layer / 10, "A")
            np.testing.assert_allclose(cell.p_a[multiplier], expected, atol=1e-6)
            np.testing.assert_allclose(cell.mass(multiplier), 1, atol=2e-6)
    read = refusal_direction.read(out)
    made_again = refusal_direction.read(tmp_path / "scratch")
    for cell, other in zip(read, made_again, strict=True):
        assert (cell.published, cell.layers, cell.loss) == (other.published, other.layers, other.loss)
        assert {key: values.tolist() for key, values in cell.complied.items()} == {
            key: values.tolist() for key, values in other.complied.items()
        }
        assert str(cell.candidates) == str(other.candidates)  # NaN and all
        assert sum(math.isnan(candidate.kl) for candidate in cell.candidates) == 1


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("refusal_direction/pipeline/runs/gemma-2b-it/direction_metadata.json", None, "direction_metadata.json"),
        ("refusal_direction/pipeline/runs/gemma-2b-it/direction_metadata.json", '{"pos": 1}', "no 'layer'"),
        ("refusal_direction/pipeline/runs/gemma-2b-it/select_direction/direction_evaluations.json", "{}", "no list"),
        ("refusal_direction/pipeline/runs/gemma-2b-it/select_direction/direction_evaluations.json", "[", "not JSON"),
        ("refusal_direction/pipeline/runs/gemma-2b-it/loss_evals/actadd_loss_eval.json", "[]", "actadd_loss_eval.json"),
        ("refusal_direction/pipeline/runs/gemma-2b-it/loss_evals/actadd_loss_eval.json", '{"pile": 1}', "no 'ce_loss'"),
        (
            "CAA_Dynamic/results/envy-kindness/results_layer=0_multiplier=-1.0_behavior=envy-kindness_type=ab_"
            "use_base_model=False_model_size=7b.json",
            '[{"answer_matching_behavior": "(A)", "a_prob": "x", "b_prob": 0.1}]',
            "item 0",
        ),
    ],
)
def test_clones_that_are_not_what_was_expected(
    path: str, content: str | None, expected: str, clones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clones / path).unlink() if content is None else (clones / path).write_text(content)
    assert main([str(clones), str(tmp_path / "outcomes")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert expected in message
    assert not (tmp_path / "outcomes").exists()


def test_no_clone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path / "outcomes")]) == 2
    assert "no clone of AlphaSteer, CAA, CAA_Dynamic, refusal_direction" in capsys.readouterr().err


STRENGTHS = ("0.0", "-0.1")


def alphasteer(folder: Path) -> Path:
    """Write a clone in which steering makes one problem wrong, and one attack and one safe prompt refused."""
    answers = folder / "AlphaSteer" / "data" / "responses" / "llama3.1"

    def items(texts: list[tuple[str, str]], **more: list[str]) -> list[dict[str, str]]:
        return [
            {"problem": SECRET, **{key: values[i] for key, values in more.items()},
             **{f"response_strength:{s}": f"{text} {SECRET}" for s, text in zip(STRENGTHS, pair, strict=True)}}
            for i, pair in enumerate(texts)
        ]  # fmt: skip

    right = ("So it is \\boxed{1,200}.", "That makes \\boxed{7} and then \\boxed{12 apples}.")
    write(answers / "gsm8k_llama3.1_results.json", items([right, ("It is $12.0", "12")], answer=["1200", "12"]))
    attacks = items([("Sure: ", "I can\u2019t help."), ("Sure. " + "x" * 200 + " I cannot", "I'm sorry, but")])
    for name in ("renellm", "jailbroken"):
        write(answers / f"{name}_llama3.1_results.json", attacks)
    safe = items([("Yes", "I am sorry"), ("I won't", "I won't")], label=["safe", "unsafe"])
    write(answers / "xstest_llama3.1_results.json", safe)
    return folder


def test_alphasteer_is_scored_from_its_answers(tmp_path: Path) -> None:
    out = tmp_path / "outcomes"
    assert main([str(alphasteer(tmp_path / "clones")), str(out)]) == 0
    assert not [path.name for path in out.iterdir() if SECRET in path.read_text()]
    start = f"{out}/alphasteer_llama31_8b_"
    names = ("gsm8k_right", "renellm_refused", "jailbroken_refused", "xstest_refused")
    assert {path.name for path in out.iterdir()} == {f"alphasteer_llama31_8b_{name}.csv" for name in names}
    judgement = ls.judge([f"{name}={start}{name}.csv" for name in names])
    totals = {
        measure.name: {setting.setting: round(setting.value.value * measure.n) for setting in measure.settings}
        for measure in judgement.measures
    }
    assert totals == {
        "gsm8k_right": {"-0.1": 1, "0": 2},
        "renellm_refused": {"-0.1": 2, "0": 0},
        "jailbroken_refused": {"-0.1": 2, "0": 0},
        "xstest_refused": {"-0.1": 2, "0": 1},
    }
    xstest = (out / "alphasteer_llama31_8b_xstest_refused.csv").read_text().splitlines()
    assert xstest == ["item,group,strength,value", "xstest-0,safe,0.0,0", "xstest-0,safe,-0.1,1",
                      "xstest-1,unsafe,0.0,1", "xstest-1,unsafe,-0.1,1"]  # fmt: skip


@pytest.mark.parametrize(
    ("response", "answer", "expected"),
    [
        ("\\boxed{2180}", "2180", True),
        ("\\boxed{-3} or \\boxed{\\text{none}}", "-3", True),
        ("first 5, at last 7.", "7", True),
        ("1,234,567", "1234567", True),
        ("0.50", ".5", True),
        ("no number", "0", False),
        ("\\boxed{} 4", "4", True),
        ("\\boxed{4} of 5", "5", False),
    ],
)
def test_the_last_boxed_number_or_the_last(response: str, answer: str, expected: bool) -> None:
    assert alphasteer_clone.right(response, answer) is expected


def caa_clone(folder: Path, multipliers: tuple[float, ...] = (-1.0, 0.0, 1.0)) -> Path:
    for behaviour in caa.BEHAVIOURS:
        for multiplier in multipliers:
            for layer in (12, 13):
                rows = [
                    {"question": f"{SECRET} {i}", "answer_matching_behavior": f"({'AB'[i % 2]})",
                     "a_prob": 0.9 * made.of_behaviour(multiplier * (layer == 13), "AB"[i % 2]),
                     "b_prob": 0.9 - 0.9 * made.of_behaviour(multiplier * (layer == 13), "AB"[i % 2])}
                    for i in range(20)
                ]  # fmt: skip
                name = f"results_layer={layer}_multiplier={multiplier}_behavior={behaviour}_type=ab_use_base_model="
                results = folder / "CAA" / "results" / behaviour
                write(results / f"{name}False_model_size=7b.json", rows)
                write(results / f"{name}False_model_size=13b.json", [])
    return folder


def test_means_and_items_of_caa(tmp_path: Path) -> None:
    out = tmp_path / "outcomes"
    assert main([str(caa_clone(tmp_path / "clones")), str(out)]) == 0
    assert not [path.name for path in out.iterdir() if SECRET in path.read_text()]
    read = caa.read(out)
    assert [behaviour.name for behaviour in read] == list(caa.BEHAVIOURS)
    assert {(behaviour.multipliers, behaviour.means) for behaviour in read} == {((-1.0, 0.0, 1.0), (0.1, 0.5, 0.9))}
    judgement = ls.judge(out / "caa_llama2_7b_chat_sycophancy.csv")
    matching, mass = judgement.measures
    assert [round(setting.value.value, 3) for setting in matching.settings] == [0.1, 0.5, 0.9]
    assert {round(setting.value.value, 3) for setting in mass.settings} == {0.9}


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("AlphaSteer/data/responses/llama3.1/renellm_llama3.1_results.json", None, "renellm_llama3.1_results.json"),
        ("AlphaSteer/data/responses/llama3.1/gsm8k_llama3.1_results.json", "[]", "response_strength"),
        (
            "AlphaSteer/data/responses/llama3.1/gsm8k_llama3.1_results.json",
            '[{"response_strength:0.0": "1"}]',
            "no 'answer'",
        ),
        (
            "AlphaSteer/data/responses/llama3.1/gsm8k_llama3.1_results.json",
            '[{"answer": "1", "response_strength:0.0": "1"}, {"answer": "1"}]',
            "no 'response_strength:0.0'",
        ),
        (
            "CAA/results/refusal/results_layer=13_multiplier=0.0_behavior=refusal_type=ab_use_base_model=False_"
            "model_size=7b.json",
            '[{"question": "another", "answer_matching_behavior": "(A)", "a_prob": 1, "b_prob": 0}]',
            "other questions",
        ),
    ],
)
def test_other_clones_that_are_not_what_was_expected(
    path: str, content: str | None, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clones = caa_clone(alphasteer(tmp_path / "clones"))
    (clones / path).unlink() if content is None else (clones / path).write_text(content)
    assert main([str(clones), str(tmp_path / "outcomes")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert expected in message
    assert not (tmp_path / "outcomes").exists()
