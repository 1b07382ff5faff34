"""Every shipped configuration parses, says what it is, and runs."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT

from lightning_steer.__main__ import main

METHODS = sorted(path.stem for path in (ROOT / "configs/methods").glob("*.yaml"))
QUIET = "--trainer.enable_progress_bar=false"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_header_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert yaml.safe_load(text)
    if path.stem != "defaults":
        for word in ("# What: ", "# Cost: ", "# Command: ", "# Expected: "):
            assert word in text, f"{path.name} lacks {word}"


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both toy networks as the configs make them, with fewer steps for the slow one."""
    folder = tmp_path_factory.mktemp("networks")
    (folder / "configs").symlink_to(ROOT / "configs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.set_num_threads(1)
        assert main(["fit", "--config", "configs/toy.yaml", QUIET]) == 0
        short = ["--data.init_args.steps_per_epoch=20", "--trainer.max_epochs=2"]
        assert main(["fit", "--config", "configs/toy_no_bypass.yaml", QUIET, *short]) == 0
    return folder


def test_toy_network_reaches_what_its_config_promises(networks: Path) -> None:
    saved = torch.load(networks / "checkpoints/toy/projection/best.ckpt", weights_only=True)
    assert saved["network"]["widths"] == (512, 512, 256, 512)
    assert saved["callbacks"]
    assert float(next(c["best_model_score"] for c in saved["callbacks"].values() if "best_model_score" in c)) < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_in_every_toy_experiment(
    method: str, networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(networks)
    few = ["--data.init_args.test_rows=40", "--model.init_args.random_draws=2", "--model.init_args.resamples=50", QUIET]
    for experiment in ("steer_toy", "steer_toy_no_bypass") if method == "mean_difference" else ("steer_toy",):
        arguments = ["--config", f"configs/{experiment}.yaml", "--config", f"configs/methods/{method}.yaml", *few]
        short = (
            ["--trainer.max_epochs=4", "--trainer.check_val_every_n_epoch=2"]
            if method in ("learned_vector", "loreft")
            else []
        )
        assert main(["fit", *arguments, *short]) == 0
        assert main(["test", *arguments]) == 0
        report = json.loads((networks / "logs" / experiment / method / "report.json").read_text())
        assert report["experiment"] == experiment
        assert report["metrics"]["target_accuracy"]["n"] == 40
