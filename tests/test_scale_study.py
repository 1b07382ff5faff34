"""The scale study: when a finding held, what it is computed from, and that one command does it all and goes on."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_steer.data.pocket.module import vocabulary
from lightning_steer.data.pocket.text import tokenizer
from lightning_steer.statistics.claims import Result
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.studies.arena.entrants import Entrant
from lightning_steer.studies.declaration import Contrast, Question
from lightning_steer.studies.scale import declared, measuring, results, training
from lightning_steer.studies.scale.declared import LARGE, SMALL, depth
from lightning_steer.studies.scale.design import FULL, QUICK
from lightning_steer.studies.scale.study import main

QUESTION = Question("Made up", "Is it there?", (Contrast("it", "made-up units"),), "units", "made up")


def test_layers_lie_at_the_same_share_of_the_blocks() -> None:
    assert [depth(layer, 5) for layer in range(5)] == list(range(5))
    assert [depth(layer, 7) for layer in (1, 2, 3, 4)] == [2, 3, 5, 6]
    assert FULL.scale(SMALL).layers == (1, 3)
    assert FULL.scale(LARGE).layers == (2, 5)


def result(value: float, detectable: float) -> Result:
    return Result(Estimate(value, math.nan, math.nan, 10, None, "none: made up"), 0.5, detectable)


@pytest.mark.parametrize(
    ("shown", "detectable", "expected"),
    [
        ((True, True), 9.0, "held"),
        ((True, False), 0.2, "did not hold"),
        ((True, False), 0.4, "not known"),
        ((False, True), 0.1, "not repeated"),
        ((False, False), 0.1, "not repeated"),
    ],
)
def test_a_finding_held_by_the_declared_rule(shown: tuple[bool, bool], detectable: float, expected: str) -> None:
    """The small model's effect is .3 from the limit of .1."""
    assert declared.verdict(result(0.4, 0.1), result(0.1, detectable), shown, 0.1) == expected


def row(small: Sequence[float] | NDArray, large: Sequence[float] | NDArray) -> results.FindingRow:
    (row_found,) = results.rows(QUESTION, {"it": np.array(small)}, {"it": np.array(large)})
    return row_found


def test_an_effect_that_shrinks_to_nothing_did_not_hold_and_a_hidden_one_is_not_known() -> None:
    noise = np.random.default_rng(0).standard_normal(40)
    noise -= noise.mean()
    both = row(1 + 0.1 * noise, 2 + 0.1 * noise)
    assert both.verdict == "held"
    assert both.difference.value == pytest.approx(1)
    assert row(1 + 0.1 * noise, 0.1 * noise).verdict == "did not hold"
    hidden = row(1 + 0.1 * noise, 20 * noise)
    assert hidden.verdict == "not known"
    assert hidden.difference.low < -1 < hidden.difference.high
    assert hidden.could_have_seen > 1
    assert row(0.1 * noise, 1 + 0.1 * noise).verdict == "not repeated"


def test_units_that_say_nothing_at_one_size_are_left_out_of_the_difference() -> None:
    small, large = np.arange(20) / 10 + 1.0, np.arange(20) / 10 + 1.5
    large[:5] = math.nan
    row_found = row(small, large)
    assert row_found.difference.n == 15
    assert row_found.difference.value == pytest.approx(0.5)
    assert row_found.results[0].estimate.n == 20
    assert row([1.0, math.nan], [math.nan, 1.0]).difference.n == 0


def test_agreement_is_one_of_the_same_order_and_minus_one_of_the_opposite() -> None:
    random = np.random.default_rng(0)
    reached = {f"m{i}": i + 0.1 * random.standard_normal(10) for i in range(8)}
    assert results.agreement(reached, reached).value == pytest.approx(1)
    assert results.agreement(reached, {name: -of for name, of in reached.items()}).value == pytest.approx(-1)
    loud = {name: np.array([-1000 * of[0], *of[1:]]) for name, of in reached.items()}  # one task of ten, turned round
    assert results.agreement(reached, loud).value == pytest.approx(1)
    unrelated = {name: random.standard_normal(10) for name in reached}
    estimate = results.agreement(reached, unrelated)
    assert estimate.low < estimate.value < estimate.high


def test_every_model_is_trained_with_its_own_rate_on_the_base_model_of_its_size(workshop: Path) -> None:
    large, small = Path("checkpoints/pocket_large"), Path("checkpoints/pocket")
    tuned = training.command(large, LARGE, "tuned", False)
    assert tuned[tuned.index("--model.init_args.llm") + 1] == "checkpoints/pocket_large/base"
    assert float(tuned[tuned.index("--model.init_args.learning_rate") + 1]) == pytest.approx(0.6 * 1.5e-3)
    narrow = training.command(small, SMALL, "narrow", False)
    assert narrow[narrow.index("--model.init_args.llm") + 1] == "checkpoints/pocket/base"
    assert "--model.init_args.learning_rate" not in narrow
    with pytest.raises(FileNotFoundError, match="make pocket"):
        training.command(small, SMALL, "base", False)
    with pytest.raises(FileNotFoundError, match="below"):
        training.command(workshop / "elsewhere", LARGE, "base", False)


# ---- the whole command


def models(folder: Path, layers: int) -> Path:
    """Write tiny random models of the pocket language, with the names of a size's models."""
    for number, name in enumerate(training.FOLDERS.values()):
        words = tokenizer(vocabulary(), "{{ messages }}")
        torch.manual_seed(number)
        size: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": layers}
        config = LlamaConfig(vocab_size=len(words), num_attention_heads=2, **size)
        LlamaForCausalLM(config).save_pretrained(folder / name)
        words.save_pretrained(folder / name)
    return folder


def made_up(_: Path, task: str, seed: int, scale: Any, listed: Sequence[Entrant], prompted: bool) -> dict[str, Any]:
    """Return a cell of the arena: the later in the alphabet, the better."""
    assert not prompted
    methods = {e.name: {"effect": len(task) + i, "damage": 0.0, "preferred": 0.0, "curve": []}
               for i, e in enumerate(listed)}  # fmt: skip
    return {"spread": 2.0 + seed, "held_out": len(scale.layers), "methods": methods, "sizes": {}}


def test_one_command_measures_both_sizes_writes_the_tables_and_goes_on(
    tmp_path: Path, workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measuring.language, "run", made_up)
    one = measuring.jobs.run_cell
    measured: list[dict[str, Any]] = []

    def once(*given: Any) -> dict[str, Any]:
        measured[:] = measured or [one(*given)]  # a cell of MERA takes a second, and there are many
        return measured[0]

    monkeypatch.setattr(measuring.jobs, "run_cell", once)
    small, large = models(tmp_path / "small", 5), models(tmp_path / "large", 7)
    command = ["--quick", "--small", str(small), "--large", str(large), "--processes", "1"]
    assert main([*command, "--only", "knowledge-3M", "arena-3M"]) == 0
    assert not (workshop / "logs/scale/quick/scale.md").exists()
    parts = workshop / "logs/scale/quick/parts"
    assert len(list(parts.iterdir())) == 2 + len(QUICK.arena_tasks)
    before = {path: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert main([*command, "--only", "knowledge"]) == 0
    text = (workshop / "logs/scale/quick/scale.md").read_text()
    assert "| Knowledge | claim |" in text
    assert "| MERA | claim |" not in text
    assert main(command) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    text = (workshop / "logs/scale/quick/scale.md").read_text()
    for question in declared.QUESTIONS:
        assert f"| {question.name} | claim |" in text
        for contrast in question.contrasts:
            assert f"| {contrast.name} |" in text
    assert "| 0.6M and 3M, same pairs | 1.00" in text
    assert not (workshop / "docs").exists()  # nothing is opened
    read = parts / "knowledge-3M-base.json"
    stored = json.loads(read.read_text())
    assert len(stored["numbers"]["units"]["loss, base"]) == QUICK.documents
    (large / "base/model.safetensors").write_bytes((large / "tuned/model.safetensors").read_bytes())
    assert main([*command, "--only", "knowledge-3M"]) == 0
    assert json.loads(read.read_text())["settings"]["weights"] != stored["settings"]["weights"]
    assert parts.joinpath("knowledge-3M-tuned.json").stat().st_mtime_ns == before[parts / "knowledge-3M-tuned.json"]


def test_without_the_small_models_it_says_what_to_do(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--only", "knowledge-0.6M"]) == 2
    assert "make pocket" in capsys.readouterr().err


def test_a_model_that_knows_the_truth_has_no_error(monkeypatch: pytest.MonkeyPatch, pocket_decoder: Path) -> None:
    """Planted probabilities have no error in log-odds, also if all traits are likelier; a random model has one."""
    from lightning_steer.data.pocket import items
    from lightning_steer.studies.pocket.reader import PocketReader

    reader, rows = PocketReader(pocket_decoder), items.traits()
    assert measuring._log_odds(reader)[0].mean() > 0.3
    planted = torch.full((len(rows), len(vocabulary())), -30.0)
    for logp, item in zip(planted, rows, strict=True):
        logp[reader.tokenizer.convert_tokens_to_ids(list(item.words))] = torch.tensor(item.ground_truth)
        logp[reader.tokenizer.convert_tokens_to_ids(list(item.words[:12]))] += 1
    monkeypatch.setattr(reader, "next", lambda _: planted)
    error, blind = measuring._log_odds(reader)
    assert error.max() < 1e-5
    assert blind.min() > 0.1
