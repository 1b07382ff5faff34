"""Every run can be exported, whatever its data and method; the card tells the true layer; predictions are written."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, WORLD
from safetensors.torch import load_file, save_file

from lightning_steer import vectors
from lightning_steer.__main__ import main
from lightning_steer.vectors.file import state

QUICK = [
    *("--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"),
    *("--model.init_args.random_draws=2", "--model.init_args.resamples=20"),
]
LLM = "--model.init_args.backbone.init_args.llm=model"
MERA = [*(f"--data.init_args.{part}={n}" for part, n in (("train", 120), ("calibration", 40), ("test", 40))), LLM]
TOY = [*(f"--data.init_args.{name}={value}" for name, value in WORLD.items()), "--data.init_args.test_rows=20"]
TOY += ["--model.init_args.backbone.init_args.checkpoint=toy.ckpt"]
EXPERIMENTS = {"steer_toy": TOY, "steer_stereoset": [LLM], "steer_behaviour": [LLM], "steer_mera": MERA}
METHODS = sorted(path.stem for path in (ROOT / "configs/methods").glob("*.yaml"))
RUNS = [(experiment, "mean_difference") for experiment in EXPERIMENTS]
RUNS += [("steer_mera" if "mera" in method else "steer_toy", method) for method in METHODS]


@pytest.fixture(scope="module")
def here(pocket_decoder: Path, toy_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("here")
    (folder / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(pocket_decoder, folder / "model")
    weights = load_file(folder / "model/model.safetensors")
    weights["lm_head.weight"] *= 100  # so that some answers are right and some are wrong
    save_file(weights, folder / "model/model.safetensors", {"format": "pt"})
    shutil.copy(toy_checkpoints["none"], folder / "toy.ckpt")
    return folder


def given(command: str, experiment: str, method: str, *more: str) -> list[str]:
    configs = ["--config", f"configs/{experiment}.yaml", "--config", f"configs/methods/{method}.yaml"]
    return [command, *configs, *QUICK, *EXPERIMENTS[experiment], *more]


def fit(experiment: str, method: str) -> Path:
    name = yaml.safe_load(Path(f"configs/methods/{method}.yaml").read_text())["run"]
    path = Path("checkpoints", experiment, name)
    if not (path / "best.ckpt").is_file():
        assert main(given("fit", experiment, method)) == 0
    return path


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
    for i, map_ in enumerate(vector.maps):
        for name, value in state(map_).items():
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
    weights = load_file("model/model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] += 0.01
    save_file(weights, "model/model.safetensors", {"format": "pt"})
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
