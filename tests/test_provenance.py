"""A checkpoint is used for what it was fitted to, and for nothing else unless the user says so."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file

from lightning_steer import provenance, row_keys
from lightning_steer.__main__ import main
from lightning_steer.data import BehaviourDataModule, MERADataModule, PocketStereoSetDataModule, ToyDataModule
from lightning_steer.data.behaviour import PocketBehaviour
from lightning_steer.data.mera_tasks import PocketTask

FEW = [
    *("--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"),
    *("--model.init_args.random_draws=2", "--model.init_args.resamples=20", "--model.init_args.strengths", "[1,2]"),
]
ACCEPT = ["--accept_mismatch", "true"]


def arguments(command: str, *more: str, method: str = "mean_difference", experiment: str = "steer_stereoset"):
    configs = ["--config", f"configs/{experiment}.yaml", "--config", f"configs/methods/{method}.yaml"]
    return [command, *configs, "--model.init_args.backbone.init_args.llm=model", *FEW, *more]


@pytest.fixture(scope="module")
def finished(pocket_decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a model and a finished fit."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(pocket_decoder, folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(arguments("fit")) == 0
    return folder


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, entered."""
    shutil.copytree(finished, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def other_weights() -> None:
    weights = load_file("model/model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] += 0.01
    save_file(weights, "model/model.safetensors", {"format": "pt"})


LAYER = ["--model.init_args.backbone.init_args.layers=1"]
OTHERS = {
    "layer": (LAYER, "sites model.layers.2, not model.layers.1"),
    "part": (["--model.init_args.backbone.init_args.part=mlp"], "sites model.layers.2, not model.layers.2.mlp"),
    "scope": (["--model.init_args.backbone.init_args.scope=Last"], "scope All(), not Last()"),
    "method": (["--model.init_args.method=RandomDirection"], "method MeanDifference, not RandomDirection"),
    "seed": (["--data.init_args.seed=7"], "fitted rows"),
    "split": (["--data.init_args.fit_share=0.2"], "held-out rows were fitted to"),
    "direction": (["--data.init_args.promote=true"], "fitted rows"),
    "data": (["--data.init_args.tone=harsh"], "fitted rows"),
    "weights": ([], "weights"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_checkpoint_is_refused_or_named_in_the_report(
    what: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, expected = OTHERS[what]
    if what == "weights":
        other_weights()
    assert main(arguments("test", *more)) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "--accept_mismatch true" in error
    assert len([line for line in error.splitlines() if line.startswith("lightning_steer:")]) == 1
    assert not list(here.rglob("report.json"))
    assert main(arguments("test", *more, *ACCEPT)) == 0
    (path,) = here.rglob("report.json")
    report = json.loads(path.read_text())
    assert any(expected in sentence for sentence in report["mismatches"])
    assert expected in path.with_name("report.md").read_text()
    assert expected in capsys.readouterr().out


def test_the_same_run_is_tested_without_a_word(here: Path) -> None:
    assert main(arguments("test")) == 0
    (path,) = here.rglob("report.json")
    assert json.loads(path.read_text())["mismatches"] == []


@pytest.mark.parametrize("command", ["validate", "predict"])
def test_every_command_that_reads_a_checkpoint_compares_it(
    command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(command, *LAYER)) == 2
    assert OTHERS["layer"][1] in capsys.readouterr().err
    assert main(arguments(command, *LAYER, *ACCEPT)) == 0


def test_a_fit_does_not_go_on_from_other_weights(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = next(here.rglob("best.ckpt"))
    other_weights()
    assert main(arguments("fit", "--ckpt_path", str(saved), "--trainer.max_epochs=2")) == 2
    assert "weights" in capsys.readouterr().err


def test_a_checkpoint_that_does_not_say_what_it_was_fitted_to(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = next(here.rglob("best.ckpt"))
    content = torch.load(path, weights_only=True)
    del content["provenance"]
    torch.save(content, path)
    assert main(arguments("test")) == 2
    assert "does not say what it was fitted to" in capsys.readouterr().err
    assert main(arguments("test", *ACCEPT)) == 0


DATA = {
    "toy": ToyDataModule(attributes=6, values=4, dimensions=4, test_rows=50),
    "stereotypes": PocketStereoSetDataModule(),
    "behaviour": BehaviourDataModule(PocketBehaviour("truthful")),
    "graded": MERADataModule(PocketTask("sentiment_analysis"), 60, 20, 20),
}


@pytest.mark.parametrize("name", DATA)
def test_rows_are_told_apart_in_every_data_module(name: str) -> None:
    data = DATA[name]
    fitted, selection = row_keys.part_rows(data)
    held_out = row_keys.held_out_rows(data)
    every = [*fitted, *selection, *held_out]
    assert len(set(every)) == len(every)
    assert (fitted, selection) == row_keys.part_rows(data)
    assert getattr(data, "trainer", None) is None


def record(**changes: object) -> provenance.Provenance:
    values = dict.fromkeys(("configuration", "weights", "precision", "tokenizer"), "a" * 64)
    one = provenance.Provenance(
        **values, model="m", method="ACE", settings={"rank": 1}, sites=["a"], scope="All()", read_positions="Last()",
        prompts="plain", task="t", fitted_rows=["1" * 24], selection_rows=["2" * 24],
    )  # fmt: skip
    return replace(one, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted({*record().__dict__} - {"model", "task"}))
def test_a_difference_in_any_entry_is_found(name: str) -> None:
    value = {"settings": {"rank": 2}, "sites": ["b"], "fitted_rows": [], "selection_rows": ["3" * 24]}.get(
        name, "other"
    )
    assert len(record().differences(record(**{name: value}))) == 1
    assert not record().differences(record(model="elsewhere", task="renamed"))
    assert provenance.read(record().as_json(), "x") == record()


def test_held_out_rows_are_counted_by_their_input() -> None:
    again = ["1" * 16 + "9" * 8, "2" * 24, "3" * 24]
    (sentence,) = provenance.overlap(record(), again)
    assert sentence == "1 of the 3 held-out rows were fitted to and 1 chosen on, not 0 and 0"
    assert not provenance.overlap(record(), ["3" * 24])
