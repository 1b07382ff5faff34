"""Every run can be exported, whatever its data and method; the card tells the true layer; predictions are written."""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT
from runs import CHANGES, EXPERIMENTS, METHODS, NOT_STEERED, RUNS, STEERED, fit, folder_with_models, given, other_model

from lightning_steer import data, methods, vectors
from lightning_steer.__main__ import main
from lightning_steer.cache import fingerprints
from lightning_steer.vectors.file import state

here = pytest.fixture(scope="module", name="here")(folder_with_models)


def classes(config: Any) -> list[str]:
    """Names of all classes in a method's configuration."""
    method = yaml.safe_load(Path(ROOT, "configs/methods", f"{config}.yaml").read_text())["model"]["init_args"]["method"]
    return [method if isinstance(method, str) else method["class_path"].rpartition(".")[2]]


def test_every_data_module_and_every_method_is_tried_here() -> None:
    assert {name for method in METHODS for name in classes(method)} == set(methods.__all__) - {"SteeringMethod"}
    assert {method for _, method in RUNS} == set(METHODS)
    assert STEERED.keys() | NOT_STEERED == set(data.__all__)
    assert set(STEERED.values()) == EXPERIMENTS.keys() == CHANGES.keys()
    assert all(changes.keys() == {"layer", "method", "split", "model", "data"} for changes in CHANGES.values())


@pytest.mark.parametrize(("experiment", "method"), sorted(set(RUNS)))
def test_every_run_is_exported(
    experiment: str, method: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    folder = fit(experiment, method)
    assert main(["export", str(folder), "out.safetensors"]) == 0, capsys.readouterr().err
    vector = vectors.load("out.safetensors")
    saved = torch.load(folder / "best.ckpt", weights_only=True)
    record = json.loads(saved["provenance"])
    assert [site.module for site in vector.card.sites] == record["sites"]
    assert vector.card.method == record["method"]
    assert vector.card.task == record["task"]
    for name, rows in (("data", "fitted_rows"), ("selection", "selection_rows")):
        assert getattr(vector.card, name) == sha256(json.dumps(record[rows]).encode()).hexdigest()
    for i, site_method in enumerate(vector.maps):
        for name, value in state(site_method).items():
            assert torch.equal(value, saved["state_dict"][f"maps.{i}.{name}"])
    if experiment != "steer_toy":
        capsys.readouterr()
        code, error = main(["export", str(folder), "out.gguf"]), capsys.readouterr().err
        assert code == 0 or (code == 2 and "no other tool can use it" in error)
        assert "Traceback" not in error


def test_a_refit_that_failed_does_not_change_the_layer_on_the_card(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    folder = fit("steer_stereoset", "mean_difference")
    layer = "--model.init_args.backbone.init_args.layers=1"
    dry = given("fit", "steer_stereoset", "mean_difference", layer, "--trainer.limit_val_batches=0", "--overwrite=true")
    assert main(dry) == 0
    assert main(["export", str(folder), "true.safetensors"]) == 0
    assert [site.layer for site in vectors.load("true.safetensors").card.sites] == [2]


def test_figures_of_another_result_are_not_put_on_the_card(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    fit("steer_behaviour", "mean_difference")
    run = ["--run", "again"]
    assert main(given("fit", "steer_behaviour", "mean_difference", *run)) == 0
    assert main(given("test", "steer_behaviour", "mean_difference", *run)) == 0
    export = ["export", "checkpoints/steer_behaviour/again", "again.safetensors"]
    assert main(export) == 0
    assert "margin_change" in vectors.load("again.safetensors").card.effect
    other = [*run, "--data.init_args.suppress=true", "--overwrite", "true"]
    assert main(given("fit", "steer_behaviour", "mean_difference", *other)) == 0
    assert main(export) == 0  # the report beside it is of the vector that stood there before
    card = vectors.load("again.safetensors").card
    assert (card.effect, card.drift) == ({}, {})


def test_a_record_of_another_fit_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    folder = fit("steer_behaviour", "mean_difference")
    text = (folder / "fit.yaml").read_text()
    (folder / "fit.yaml").write_text(text.replace("layers: 2", "layers: 1"))
    assert main(["export", str(folder), "other.safetensors"]) == 2
    assert "fit.yaml is not of the fit that wrote best.ckpt" in capsys.readouterr().err
    (folder / "fit.yaml").unlink()
    assert main(["export", str(folder), "other.safetensors"]) == 0, "the checkpoint has the record inside"
    (folder / "fit.yaml").write_text(text)


def test_a_model_that_changed_since_is_refused_or_named_on_the_card(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    fit("steer_behaviour", "mean_difference")
    shutil.copytree(here, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    other_model()
    command = ["export", "checkpoints/steer_behaviour/mean_difference", "changed.safetensors"]
    assert main(command) == 2
    assert "something else (weights" in capsys.readouterr().err
    assert main([*command, "--accept_mismatch", "true"]) == 0
    assert any("weights" in warning for warning in vectors.load("changed.safetensors").card.warnings)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_predictions_are_written_row_by_row(
    experiment: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    folder = fit(experiment, "mean_difference")
    assert main(given("predict", experiment, "mean_difference")) == 0
    path = Path("logs", experiment, folder.name, "predictions-0.jsonl")
    assert str(path) in capsys.readouterr().out
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(len(lines)))
    assert len(lines) > 10
    for line in lines:
        values = torch.tensor(line["log_probabilities"])
        assert values.shape[-1] > 1
        assert torch.all(values.isfinite() & (values < 1e-5))


def test_a_command_hashes_a_models_weights_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    folder, hashed = fit("steer_behaviour", "mean_difference"), []
    whole = fingerprints._of_memory
    monkeypatch.setattr(fingerprints, "_of_memory", lambda model: hashed.append(model) or whole(model))
    assert main(["export", str(folder), "once.safetensors"]) == 0
    assert len(hashed) == 1
    model = hashed[0]
    before = fingerprints.of_memory(model)
    with fingerprints.remembered(), torch.no_grad():
        assert fingerprints.of_memory(model) == fingerprints.of_memory(model) == before
        assert len(hashed) == 3
        next(model.parameters())[0] += 1
        assert fingerprints.of_memory(model) != before, "what was written to is another model"
    next(model.parameters()).data[0] += 1
    assert fingerprints.of_memory(model) != before, "nothing is remembered outside of a command"
