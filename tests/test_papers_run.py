"""The papers' experiments end to end: random models of their families, depth and tokenizer class, true formats."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_papers

from lightning_steer.studies.papers.__main__ import main
from lightning_steer.studies.papers.mera import METHODS

FEW = ["--model.init_args.random_draws=2", "--model.init_args.random_curve=0", "--model.init_args.resamples=50"]
FAST = ["--trainer.accelerator=cpu", "--trainer.logger=false", *FEW]
EXACT = "--model.init_args.backbone.init_args.dtype=float32"
NUMBER = r"-?[\d.]+(e-?\d+)?"
WITH_INTERVAL = rf"{NUMBER} \[{NUMBER}, {NUMBER}\]"


def rows(name: str) -> list[list[str]]:
    """The cells of every row of the table that was written."""
    lines = Path("logs/papers", name, "table.md").read_text().split("\n")
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]


def test_caa_stands_beside_the_published_slope_and_is_kept(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_papers.caa(workshop / "data/CAA")
    model = tiny_papers.llama2(workshop / "Llama-2-7b-chat-hf")
    command = ["caa", "--models", model, "--only", "sycophancy", *FAST, EXACT]
    assert main(command) == 0
    (row,) = [row for row in rows("caa") if row[0] == "sycophancy"]
    assert row[5] == "+0.091"
    assert re.fullmatch(WITH_INTERVAL, row[6])
    assert row[7] == "4"
    assert [row[6] for row in rows("caa")[1:] if row[0] != "sycophancy"] == [""] * 6, "what was not run is empty"
    capsys.readouterr()
    assert main(command) == 0
    assert "caa: sycophancy" not in capsys.readouterr().out, "a finished run is not run again"


def test_refusal_direction_is_selected_from_a_users_own_prompts(workshop: Path) -> None:
    tiny_papers.prompts(workshop / "data")
    model = tiny_papers.saved(workshop / "m", "llama", 3, tiny_papers.llama2_tokenizer(True))
    assert main(["refusal_direction", "--models", model]) == 0
    (ours,) = [row for row in rows("refusal_direction") if row[0] == "ours: m"]
    assert ours[6].endswith(f"of {2 * len(' [/INST]')}"), "the outputs of all blocks but the last, at every position"
    assert ours[1] == "none" or re.fullmatch(WITH_INTERVAL, ours[3])


@pytest.mark.slow
def test_fidelity_of_the_notebook_in_both_models(workshop: Path) -> None:
    models = [tiny_papers.gemma2(workshop / name) for name in ("gemma-2-2b", "gemma-2-2b-it")]
    tiny_papers.stereoset(workshop / "data/stereoset/dev.json")
    few = ["--data.init_args.per_type=4", EXACT]
    assert main(["fidelity_notebook", "--models", *models, *FAST, *few]) == 0
    ours = [row for row in rows("fidelity_notebook") if row[0].startswith("gemma")]
    assert [row[1] for row in ours] == ["5, 11, 17", "5", "11", "17"] * 2
    assert all(re.fullmatch(WITH_INTERVAL, row[5]) for row in ours)


@pytest.mark.slow
def test_fidelity_with_all_data_at_every_second_layer(workshop: Path) -> None:
    model = tiny_papers.gemma2(workshop / "gemma-2-2b")
    tiny_papers.stereoset(workshop / "data/stereoset/dev.json")
    assert main(["fidelity", "--models", model, *FAST, EXACT]) == 0
    ours = [row for row in rows("fidelity") if row[0].startswith("gemma")]
    assert [row[1] for row in ours] == [str(layer) for layer in range(1, 26, 2)]
    assert {row[7] for row in ours} == {"8"}, "both tasks of a quarter of the 16 terms; the others fit and select"


@pytest.mark.slow
def test_likelihood_and_responses_under_system_prompts(workshop: Path) -> None:
    tiny_papers.caa(workshop / "data/CAA")
    tiny_papers.steer_wrk(workshop / "data/steer_wrk")
    model = tiny_papers.llama2(workshop / "Llama-2-7b-chat-hf")
    assert main(["likelihood", "--models", model, *FAST, EXACT]) == 0
    ours = [row for row in rows("likelihood") if row[0].startswith("ours") and row[1] == "promotion"]
    assert len(ours) == 9, "three behaviours at three coefficients"
    assert all(re.fullmatch(NUMBER, cell) for row in ours for cell in row[2:6])
    assert main(["system_prompts", "--models", model, "--trainer.accelerator=cpu"]) == 0
    found = rows("system_prompts")[1:]
    assert [row[1] for row in found] == ["-2", "-1", "1", "2"] * 2
    assert [row[0] for row in found] == ["none"] * 4 + ["You are a helpful AI assistant."] * 4
    assert all(row[3] == "6" for row in found)


@pytest.mark.slow
def test_a_fine_tuned_model_against_its_base(workshop: Path) -> None:
    tiny_papers.steer_wrk(workshop / "data/steer_wrk")
    models = [tiny_papers.llama2(workshop / name, False, seed) for seed, name in enumerate(("base", "tuned"))]
    assert main(["likelihood_tuned", "--models", *models, *FAST, EXACT]) == 0
    (ours,) = [row for row in rows("likelihood_tuned") if row[0].startswith("ours") and row[1] == "promotion"]
    assert ours[0] == "ours: tuned for base"
    assert ours[-1] == "6"
    assert all(float(cell) != 0 for cell in ours[2:6])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "name", "parts"),
    [
        (tiny_papers.llama3, "Llama-3.2-1B", ["sms_spam", "mmlu_professional", "last"]),
        (tiny_papers.gemma2, "gemma-2-2b", ["yes_no_question", "sentiment_analysis", "last"]),
        (tiny_papers.qwen2, "Qwen2.5-3B", ["mmlu_high_school", "last"]),
        (tiny_papers.llama3, "Llama-3.2-1B-Instruct", ["mmlu_professional", "exact"]),
        (tiny_papers.gemma2, "gemma-2-2b-it", ["mmlu_professional", "exact"]),
        (tiny_papers.qwen2, "Qwen2.5-3B-Instruct", ["mmlu_professional", "exact"]),
    ],
)
def test_mera(make: Callable[[Path], str], name: str, parts: list[str], workshop: Path) -> None:
    tiny_papers.tasks(workshop / "data")
    sizes = [f"--data.init_args.{part}={n}" for part, n in (("train", 30), ("calibration", 10), ("test", 10))]
    assert main(["mera", "--models", make(workshop / name), "--only", *parts, *FAST, *sizes]) == 0
    ours = [row for row in rows("mera") if row[0] == name]
    tasks = len(parts) - 1
    assert len(ours) == tasks * (len(METHODS) + 1)
    assert {row[3] for row in ours} == {*(method.name for method in METHODS), "prompt"}
    assert all(re.fullmatch(WITH_INTERVAL, row[6]) for row in ours)
    assert all(float(row[5].split()[0]) == 0 for row in ours if row[4] == "no"), "what is not certified is not steered"
