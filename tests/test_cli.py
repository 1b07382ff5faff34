"""The command line as a user types it: resuming, precedence, processes, folders."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from commands import Command
from conftest import ROOT, WORLD

from lightning_steer.__main__ import main
from lightning_steer.report.__main__ import main as report_main

TINY = [f"--data.init_args.{name}={value}" for name, value in WORLD.items()]
QUIET = "--trainer.enable_progress_bar=false"
TRAIN = [
    *("fit", "--config", "configs/toy.yaml", *TINY, QUIET, "--model.init_args.widths", "[32,32,16,32]"),
    *("--data.init_args.batch_size=16", "--data.init_args.test_rows=50"),
]
STEER = [
    *("--config", "configs/steer_toy.yaml", "--config", "configs/methods/mean_difference.yaml", *TINY, QUIET),
    "--data.init_args.test_rows=50",
]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lightning_steer", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_help_is_there_without_loading_anything_heavy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "fit" in capsys.readouterr().out
    code = "import sys; from lightning_steer.__main__ import main; main([]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), capture_output=True)


def test_the_whole_configuration_can_be_printed_and_read_back(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", *STEER, "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["init_args"]["method"]["class_path"].endswith("MeanDifference")
    assert printed["data"]["init_args"]["attributes"] == WORLD["attributes"]
    assert printed["trainer"]["use_distributed_sampler"] is False
    (workshop / "whole.yaml").write_text(yaml.safe_dump(printed))
    with pytest.raises(SystemExit):
        main(["fit", "--config", "whole.yaml", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out) == printed


def test_killed_training_goes_on_and_ends_as_if_nothing_had_happened(workshop: Path) -> None:
    settings = [*TRAIN, "--trainer.max_epochs=12", "--data.init_args.steps_per_epoch=60"]
    assert main([*settings, "--experiment", "whole"]) == 0
    left = workshop / "checkpoints/killed/projection/unfinished.ckpt"
    killed = ["lightning_steer", *settings, "--experiment", "killed"]
    with Command(killed, workshop / "first", stop_at=(left.name, 2)) as run:  # one is written, and eleven epochs left
        run.wait_for_stop()
        run.kill()
    assert torch.load(left, weights_only=True)["epoch"] == 0
    with Command(killed, workshop / "second") as run:
        assert "Going on with the unfinished run killed/projection" in run.finish()
    assert not left.exists()
    whole, resumed = (weights(workshop / f"checkpoints/{name}/projection/best.ckpt") for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_an_unfinished_run_with_other_settings_starts_anew(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--trainer.max_epochs=1"]) == 0
    folder = workshop / "checkpoints/toy/projection"
    shutil.copy(folder / "best.ckpt", folder / "unfinished.ckpt")
    assert main([*TRAIN, "--trainer.max_epochs=1", "--model.init_args.learning_rate=0.001", "--overwrite", "true"]) == 0
    assert "had another configuration: starting anew" in capsys.readouterr().out
    assert not (folder / "unfinished.ckpt").exists()


def test_fit_then_test_writes_a_report_and_the_command_line_wins_over_the_checkpoint(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--trainer.max_epochs=2"]) == 0
    assert main(["fit", *STEER]) == 0
    folder = workshop / "logs/steer_toy/mean_difference"
    assert main(["test", *STEER]) == 0
    first = json.loads((folder / "report.json").read_text())
    assert {"experiment", "task", "backbone", "method", "seed", "metrics", "warnings", "versions"} <= first.keys()
    assert first["experiment"] == "steer_toy"
    for estimate in first["metrics"].values():
        assert estimate.keys() == {"value", "low", "high", "n", "clusters", "how"}
    assert first["metrics"]["target_accuracy"]["n"] == 50
    assert len(first["curves"]["strength"]["x"]) == 12  # and 0
    assert main(["test", *STEER, "--data.init_args.test_rows=30", "--model.init_args.strengths", "[1,2]"]) == 0
    second = json.loads((folder / "report.json").read_text())
    assert second["metrics"]["target_accuracy"]["n"] == 30
    assert second["curves"]["strength"]["x"] == [0, 1, 2]
    assert second["metrics"]["strength"] == first["metrics"]["strength"]  # what was chosen stays chosen
    assert list(folder.glob("events.out.tfevents.*"))
    assert sorted(path.name for path in workshop.iterdir()) == ["checkpoints", "configs", "logs"]  # and nowhere else
    capsys.readouterr()
    assert report_main(["logs"]) == 0
    assert "steer_toy/mean_difference" in capsys.readouterr().out
    assert "target_accuracy_low" in (workshop / "logs/runs.csv").read_text().splitlines()[0]


def test_two_processes_from_the_command_line(workshop: Path) -> None:
    assert main([*TRAIN, "--trainer.max_epochs=2"]) == 0
    assert main(["fit", *STEER]) == 0
    assert main(["test", *STEER]) == 0
    two = ["--trainer.strategy", "ddp", "--trainer.devices", "2", "--trainer.accelerator", "cpu", "--experiment", "two"]
    for name in ("fit", "test"):
        done = subprocess.run(command(name, *STEER, *two), env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    reports = [
        json.loads((workshop / f"logs/{e}/mean_difference/report.json").read_text()) for e in ("steer_toy", "two")
    ]
    for name, estimate in reports[0]["metrics"].items():
        assert reports[1]["metrics"][name] == pytest.approx(estimate, abs=1e-5), name


def test_tensorboard_shows_scalars_figures_and_settings(workshop: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main([*TRAIN, "--trainer.max_epochs=2"]) == 0
    assert main(["fit", *STEER]) == 0
    assert main(["test", *STEER]) == 0
    seen = EventAccumulator("logs/steer_toy/mean_difference").Reload()
    tags = seen.Tags()
    assert {"val/strength", "test/target_accuracy", "test/bypass"} <= set(tags["scalars"])
    assert {"dose_response", "drift", "pairs"} <= set(tags["images"])
    assert "_hparams_/session_start_info" in seen.summary_metadata
