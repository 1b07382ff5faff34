"""Every module that is fitted says in its checkpoint to what, and takes no other checkpoint unless it is told to."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROOT
from safetensors.torch import load_file, save_file

from lightning_steer import modules
from lightning_steer.__main__ import main
from lightning_steer.runs.traced import TracedModule

D, M, T = "--data.init_args.", "--model.init_args.", "--trainer."
ACCEPT = ["--accept_mismatch", "true"]
TOY = [f"{D}{name}={n}" for name, n in (("attributes", 4), ("values", 3), ("dimensions", 3), ("steps_per_epoch", 4))]
TASK = [f"{D}{name}={n}" for name, n in (("train", 60), ("calibration", 30), ("test", 30), ("cache", "null"))]
SAE = f"{M}backbone.init_args."
BASE = [f"{T}enable_progress_bar=false", f"{T}accelerator=cpu", f"{T}max_epochs=1"]
CASES: dict[str, tuple[str, list[str]]] = {
    "ToyClassifier": ("toy", [*TOY, f"{D}test_rows=20", f"{M}widths=[8,8]"]),
    "LanguageModel": ("own", []),
    "ErrorProbe": ("probe", [*TASK, f"{SAE}llm=model", f"{SAE}layers=[1]", f"{M}penalties=[0.1]"]),
    "SparseCoder": ("sae", [*TASK, f"{SAE}llm=model", f"{SAE}layers=[1]", f"{T}max_epochs=1",
                            f"{T}check_val_every_n_epoch=1"]),
}  # fmt: skip
OWN = """
experiment: own
run: run
model: {class_path: LanguageModel, init_args: {llm: model, warm_up: 0}}
data: {class_path: TextDataModule, init_args: {train: words.txt, tokenizer: model}}
"""


class Change(NamedTuple):
    """Something else than was fitted to, and what the sentence about it says."""

    arguments: list[str]
    expected: str
    before: Callable[[], object] = lambda: None


def other_weights() -> None:
    weights = load_file("model/model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] += 0.01
    save_file(weights, "model/model.safetensors", {"format": "pt"})


def other_text() -> None:
    Path("words.txt").write_text(Path("words.txt").read_text().replace("The fox", "The crow", 1))


OTHERS = {
    "ToyClassifier": {
        "settings": Change([f"{M}residual=pad", f"{M}widths=[8,12]"], "settings"),
        "world": Change([f"{D}world_seed=3"], "'world_seed': 0"),
        "rows": Change([f"{D}seed=5"], "fitted rows generated rows"),
    },
    "LanguageModel": {
        "weights": Change([], "weights", other_weights),
        "rows": Change([], "fitted rows", other_text),
        "split": Change([f"{D}seed=3"], "selection rows"),
    },
    "ErrorProbe": {
        "weights": Change([], "weights", other_weights),
        "rows": Change([f"{D}seed=5"], "fitted rows 60 rows"),
        "layer": Change([f"{SAE}layers=[2]"], "sites model.layers.1, not model.layers.2"),
        "settings": Change([f"{M}penalties=[0.2]"], "settings"),
        "positions": Change([f"{SAE}read_positions=AllTokens"], "read positions LastPromptToken(), not AllTokens()"),
    },
}
OTHERS["SparseCoder"] = {
    **{name: OTHERS["ErrorProbe"][name] for name in ("weights", "rows", "positions")},
    "settings": Change([f"{M}sparsity=0.1"], "settings"),
}


def arguments(name: str, command: str, *more: str) -> list[str]:
    config, own = CASES[name]
    path = "own.yaml" if config == "own" else f"configs/{config}.yaml"
    return [command, "--config", path, *BASE, *own, *more]


def fit(name: str, *more: str) -> int:
    return main(arguments(name, "fit", *more))


@pytest.fixture(scope="module")
def start(pocket_decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a finished fit of each kind."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(pocket_decoder, folder / "model")
    (folder / "own.yaml").write_text(OWN)
    (folder / "words.txt").write_text("\n\n".join(["The fox .", "The crow ."] * 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in CASES:
            assert fit(name) == 0
    return folder


@pytest.fixture
def here(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(start, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_every_module_that_is_fitted_is_traced_and_tried_here() -> None:
    every = {name: getattr(modules, name) for name in modules.__all__}
    fitted = {name for name, kind in every.items() if kind.training_step.__module__.startswith("lightning_steer")}
    assert {name for name, kind in every.items() if issubclass(kind, TracedModule)} == fitted
    assert fitted - {"SteeringAdaptor"} == CASES.keys() == OTHERS.keys()  # test_provenance.py has the adaptor


@pytest.mark.parametrize(("name", "what"), [(name, what) for name in OTHERS for what in OTHERS[name]])
def test_another_checkpoint_is_refused_or_named(
    name: str, what: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, expected, before = OTHERS[name][what]
    before()
    assert main(arguments(name, "test", *more)) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "--accept_mismatch true" in error
    assert len([line for line in error.splitlines() if line.startswith("lightning_steer:")]) == 1
    assert not list(here.rglob("report.json"))
    code, output = main(arguments(name, "test", *more, *ACCEPT)), capsys.readouterr()
    if name == "ToyClassifier" and what == "settings":  # its weights do not fit into the other network
        assert code == 2
        assert "has shape" in output.err or "differ in" in output.err
        return
    assert code == 0
    assert any(line.startswith("Mismatch accepted:") and expected in line for line in output.out.splitlines())
    for path in here.rglob("report.json"):
        assert any(expected in sentence for sentence in json.loads(path.read_text())["mismatches"])
        assert expected in path.with_name("report.md").read_text()


@pytest.mark.parametrize("name", CASES)
def test_the_same_run_is_used_without_a_word(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("test", "validate"):
        assert main(arguments(name, command)) == 0, capsys.readouterr().err
    assert "ismatch" not in capsys.readouterr().out
    for path in here.rglob("report.json"):
        assert json.loads(path.read_text())["mismatches"] == []


@pytest.mark.parametrize("name", CASES)
def test_only_another_fit_needs_the_word_to_overwrite(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name != "ErrorProbe":  # which has none
        assert fit(name, f"{M}learning_rate=0.002") == 0, capsys.readouterr().err
    more, expected, before = OTHERS[name]["rows"]
    before()
    assert fit(name, *more) == 2
    assert (expected if name == "ToyClassifier" else "fitted rows") in (error := capsys.readouterr().err)
    assert "--overwrite true" in error
    assert fit(name, *more, "--overwrite", "true") == 0


@pytest.mark.parametrize("name", CASES)
def test_validation_compares_too(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more, _, before = OTHERS[name]["rows"]
    before()
    assert main(arguments(name, "validate", *more)) == 2
    assert "something else" in capsys.readouterr().err
