"""Tables of outcomes from clones of repositories: figures and verdicts go in, prompts and answers do not."""

import json
import math
from pathlib import Path

import numpy as np
import published_tables as made
import pytest

from lightning_steer.studies.published import caa_dynamic, refusal_direction
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
    assert [(one.behaviour, one.layer) for one in cells] == [(b, i) for b in made.BEHAVIOURS for i in range(LAYERS)]
    for one in cells:
        assert one.at_a.tolist() == [True, False] * (ITEMS // 2)
        for multiplier in (-1.0, 0.0, 1.0):
            expected = made.of_letter(multiplier + one.layer / 10, "A")
            np.testing.assert_allclose(one.p_a[multiplier], expected, atol=1e-6)
            np.testing.assert_allclose(one.mass(multiplier), 1, atol=2e-6)
    read = refusal_direction.read(out)
    made_again = refusal_direction.read(tmp_path / "scratch")
    for one, other in zip(read, made_again, strict=True):
        assert (one.published, one.layers, one.loss) == (other.published, other.layers, other.loss)
        assert {key: values.tolist() for key, values in one.complied.items()} == {
            key: values.tolist() for key, values in other.complied.items()
        }
        assert str(one.candidates) == str(other.candidates)  # NaN and all
        assert sum(math.isnan(candidate.kl) for candidate in one.candidates) == 1


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
            "CAA_Dynamic/results/envy-kindness/results_layer=0_multiplier=0.0_behavior=envy-kindness_type=ab_"
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
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert expected in said
    assert not (tmp_path / "outcomes").exists()


def test_no_clone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path / "outcomes")]) == 2
    assert "clone of CAA_Dynamic" in capsys.readouterr().err
