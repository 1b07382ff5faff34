"""On two processes of a command the first alone writes, and both together predict what one predicts."""

import json
import re
from pathlib import Path

import pytest
import torch
from commands import Command
from test_export_runs import EXPERIMENTS, fit, given, here
from test_lost_process import FIT, TWO

from lightning_steer.files import PART

__all__ = ["here"]  # a fixture


def on_two(arguments: list[str], folder: Path) -> Command:
    """The command on two processes that reach each other by gloo, to its end."""
    with Command(["lightning_steer", *arguments, *TWO], folder) as run:
        run.finish()
    return run


def changed(run: Command, rank: int, folder: Path) -> set[str]:
    """Names of files below the working folder that a process changed, by the names that they have in the end."""
    paths = (Path(line.partition(" ")[2]) for line in run.changes(rank))
    return {path.name for path in paths if path.is_relative_to(folder) and not re.fullmatch(PART, path.name)}


@pytest.mark.slow
def test_only_the_first_process_writes(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    steer = ["steer_behaviour", "mean_difference"]
    commands = {
        "network": ([*FIT, "--trainer.max_epochs=2", "--data.init_args.steps_per_epoch=5"], "unfinished.ckpt"),
        "method": (given("fit", *steer, "--experiment=ranks"), "fit.yaml"),
        "report": (given("test", *steer, "--experiment=ranks"), "report.json"),
    }
    for name, (arguments, written) in commands.items():
        run = on_two(arguments, tmp_path / name)
        assert written in changed(run, 0, here)
        assert not changed(run, 1, here), name


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_two_processes_predict_what_one_does(
    experiment: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    folder = Path("logs", experiment, fit(experiment, "mean_difference").name)
    arguments = given("predict", experiment, "mean_difference")

    def predictions() -> list[list[dict[str, object]]]:
        paths = sorted(folder.glob("predictions-*.jsonl"))
        return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]

    run = on_two(arguments, tmp_path / "two")
    two = predictions()
    assert len(two) == 2
    assert all(two), "each process has rows"
    assert changed(run, 1, here) == {"predictions-1.jsonl"}
    with Command(["lightning_steer", *arguments, "--trainer.devices=1"], tmp_path / "one") as alone:
        alone.finish()
    (written,) = predictions()  # and the second one of before is gone
    assert [line["row"] for line in written] == list(range(len(written)))
    both = sorted((line for lines in two for line in lines), key=lambda line: line["row"])  # type: ignore[arg-type]
    assert [line["row"] for line in both] == list(range(len(written))), "every row once"
    for left, right in zip(written, both, strict=True):
        torch.testing.assert_close(
            torch.tensor(right["log_probabilities"]), torch.tensor(left["log_probabilities"]), rtol=0, atol=1e-5
        )
