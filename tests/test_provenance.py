"""A checkpoint is used for what it was fitted to, and for nothing else unless the user says so."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from conftest import ROOT
from lightning.pytorch.core.hooks import DataHooks
from safetensors.torch import load_file, save_file
from test_stereoset_data import dev

from lightning_steer import data
from lightning_steer.__main__ import main
from lightning_steer.cache import ensure
from lightning_steer.data import (
    ActivationsDataModule,
    BehaviourDataModule,
    MERADataModule,
    PocketDataModule,
    PocketStereoSetDataModule,
    StereoSetDataModule,
    TextDataModule,
    ToyDataModule,
    ToyLabelDataModule,
)
from lightning_steer.data.behaviours.module import PocketBehaviour
from lightning_steer.data.mera.tasks import PocketTask
from lightning_steer.data.pocket import module as pocket
from lightning_steer.data.toy import world as toy_world
from lightning_steer.data.toy.world import ToyWorld
from lightning_steer.lm.language_model import LLM
from lightning_steer.runs import provenance, row_keys

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
    "scope": (
        ["--model.init_args.backbone.init_args.positions=LastPromptToken"],
        "positions AllTokens(), not LastPromptToken()",
    ),
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


def test_no_word_lets_a_fit_go_on_from_other_rows(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What came of the old rows would be recorded as of the new ones, and pass every later comparison."""
    saved = next(here.rglob("best.ckpt"))
    more = [
        "--ckpt_path",
        str(saved),
        "--trainer.max_epochs=2",
        "--data.init_args.promote=true",
        "--run",
        "on",
        *ACCEPT,
    ]
    assert main(arguments("fit", *more)) == 2
    error = capsys.readouterr().err
    assert "fitted rows" in error
    assert "leave --ckpt_path out, to begin anew" in error
    assert not list(here.rglob("on/best.ckpt"))


def test_a_checkpoint_that_does_not_say_what_it_was_fitted_to(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = next(here.rglob("best.ckpt"))
    content = torch.load(path, weights_only=True)
    del content["provenance"]
    torch.save(content, path)
    assert main(arguments("test")) == 2
    assert "does not say what it was fitted to" in capsys.readouterr().err
    assert main(arguments("test", *ACCEPT)) == 0


def recorded(folder: Path, model: Path) -> ActivationsDataModule:
    (folder / "texts.txt").write_text("The fox .\n\nThe crow .")
    ensure(LLM(str(model), 1), ["The fox .", "The crow ."], folder / "cache")
    return ActivationsDataModule(str(folder / "texts.txt"), str(folder / "cache"))


WORLD = {"attributes": 6, "values": 4, "dimensions": 4}
DATA: dict[str, Callable[[Path, Path], L.LightningDataModule]] = {
    "ToyDataModule": lambda *_: ToyDataModule(test_rows=50, **WORLD),
    "ToyLabelDataModule": lambda *_: ToyLabelDataModule(test_rows=50, **WORLD),
    "PocketDataModule": lambda *_: PocketDataModule(),
    "PocketStereoSetDataModule": lambda *_: PocketStereoSetDataModule(),
    "StereoSetDataModule": lambda folder, _: StereoSetDataModule(dev(folder)),
    "BehaviourDataModule": lambda *_: BehaviourDataModule(PocketBehaviour("truthful")),
    "MERADataModule": lambda *_: MERADataModule(PocketTask("sentiment_analysis"), 60, 20, 20),
    "TextDataModule": lambda folder, model: TextDataModule(str(text(folder)), str(model)),
    "ActivationsDataModule": recorded,
}


def text(folder: Path) -> Path:
    (folder / "text.txt").write_text("\n\n".join(f"The fox {'. ' * i}" for i in range(1, 30)))
    return folder / "text.txt"


def test_every_data_module_that_can_be_fitted_to_is_tried_here() -> None:
    every = {name: getattr(data, name) for name in data.__all__}
    assert {name for name, kind in every.items() if kind.train_dataloader is not DataHooks.train_dataloader} == set(
        DATA
    )


@pytest.mark.parametrize("name", DATA)
def test_rows_are_told_apart_in_every_data_module(name: str, pocket_decoder: Path, tmp_path: Path) -> None:
    module, again = (DATA[name](tmp_path, pocket_decoder) for _ in range(2))
    fitted, selection = row_keys.part_rows(module)
    held_out = row_keys.held_out_rows(module)
    assert fitted
    assert selection
    if name == "ActivationsDataModule":  # which has one part
        assert (fitted, held_out) == (selection, [])
    else:
        every = [*fitted, *selection, *held_out]
        assert len(set(every)) == len(every)
        assert bool(held_out) == (name != "TextDataModule")  # whose test is on the rows that were chosen on
    assert (fitted, selection, held_out) == (*row_keys.part_rows(again), row_keys.held_out_rows(again))
    assert getattr(module, "trainer", None) is None


def test_generated_rows_do_not_depend_on_the_last_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.randn`` gives other last bits with AVX2 than without: a fit on one machine is the same on another."""
    module = ToyDataModule(test_rows=50, **WORLD)
    before = row_keys.part_rows(module), row_keys.held_out_rows(module)
    render = ToyWorld.render
    monkeypatch.setattr(ToyWorld, "render", lambda *arguments: render(*arguments) * (1 + 1e-6))
    assert (row_keys.part_rows(module), row_keys.held_out_rows(module)) == before


def test_fractions_are_never_a_rows_key() -> None:
    with pytest.raises(ValueError, match="fractions have other last bits on another machine"):
        row_keys.row_keys([SimpleNamespace(content=((torch.ones(2),), (torch.ones(2).long(),)))])
    with pytest.raises(ValueError, match="rows of a Tensor cannot be told apart: give its class a `content`"):
        row_keys.row_keys([torch.ones(2)])


CHANGES = ["pairs", "target", "target_value", "seed", "batch_size", "noise", "world_seed", "continuous", "paired"]


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_changes_generated_rows_changes_their_keys(name: str) -> None:
    value = {"target": 2, "noise": 0.2, "continuous": True, "paired": False}.get(name, 3)
    record, other = (ToyDataModule(**{"test_rows": 20, **WORLD, **more}) for more in ({}, {name: value}))
    first, second = (next(iter(module.train_dataloader())) for module in (record, other))
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert row_keys.part_rows(record)[0] != row_keys.part_rows(other)[0]
    inputs = [{key[: row_keys.INPUT] for key in row_keys.part_rows(module)[0]} for module in (record, other)]
    assert (inputs[0] == inputs[1]) == (first.x.shape == second.x.shape and torch.equal(first.x, second.x))


def test_rows_of_this_version_are_those_of_the_settings() -> None:
    """If this fails, rows are drawn in another way: raise ``ROWS`` of the data module, then the numbers here."""
    pairs = next(iter(ToyDataModule(**WORLD).train_dataloader()))
    assert (toy_world.ROWS, pairs.y[0].tolist(), pairs.y[-1].tolist()) == (1, [3, 0, 3, 2, 3, 2], [2, 0, 0, 1, 2, 2])
    torch.testing.assert_close(pairs.x[0, :4], torch.tensor([-0.60395, -0.8582, 0.10927, -0.37098]), atol=1e-4, rtol=0)
    (first, *_) = pocket.documents((0, 0, 0, 0), 3)
    assert pocket.ROWS == 1
    assert first.text == "To be blunt, the forest thatchers came to the market. They tend to be messy."


def record(**changes: object) -> provenance.Provenance:
    values = dict.fromkeys(("configuration", "weights", "precision", "tokenizer"), "a" * 64)
    record = provenance.Provenance(
        **values, model="m", method="ACE", settings={"rank": 1}, sites=["a"], positions="AllTokens()",
        read_positions="LastPromptToken()",
        prompts="plain", task="t", fitted_rows=["1" * 24], selection_rows=["2" * 24],
    )  # fmt: skip
    return replace(record, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted({*record().__dict__} - {"model", "task", "files"}))
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
