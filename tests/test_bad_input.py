"""A user's mistake ends in one sentence that names the value and what was expected, exit code 2, no traceback."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import WORLD

from lightning_steer.__main__ import main
from lightning_steer.report.__main__ import main as report_main

STEER = ["fit", "--config", "configs/steer_toy.yaml", "--config", "configs/methods/mean_difference.yaml"]
TINY = [f"--data.init_args.{name}={value}" for name, value in {**WORLD, "test_rows": 20}.items()]
MODEL, DATA = "--model.init_args.", "--data.init_args."

BAD = {
    "unknown command": (["fti"], "no command 'fti'; did you mean fit?"),
    "no configuration": (["fit"], "required: fit.data, fit.model"),
    "missing file": (["fit", "--config", "configs/nope.yaml"], "nope.yaml"),
    "unknown method": (
        [*STEER, f"{MODEL}method", "Foo"],
        "method: 'Foo' is not a known class; known are ACE, Ablation",
    ),
    "unknown module": ([*STEER, "--model", "Foo"], "model: 'Foo' is not a known class; known are ActivationRecorder"),
    "unknown source": (
        ["fit", "--config", "configs/steer_behaviour.yaml", *STEER[3:], "--data.source", "PairFile"],
        "source: 'PairFile' is not a known class; did you mean PairsFile",
    ),
    "unknown positions": (
        ["fit", "--config", "configs/steer_behaviour.yaml", *STEER[3:], "--model.backbone.positions", "Last"],
        "positions: 'Last' is not a known class; known are AllTokens, GeneratedTokens, LastPromptToken, PromptTokens, ",
    ),
    "unknown data": ([*STEER, "--data", "Foo"], "data: 'Foo' is not a known class"),
    "misspelt key": ([*STEER, f"{MODEL}strenghts", "[1]"], "no option 'strenghts'; did you mean strengths?"),
    "misspelt method key": (
        [*STEER, f"{MODEL}method", "LEACE", f"{MODEL}method.by_valeu", "true"],
        "no option 'by_valeu'; did you mean by_value",
    ),
    "misspelt data key": ([*STEER, f"{DATA}noize", "1"], "no option 'noize'; did you mean noise"),
    "misspelt trainer key": (
        [*STEER, "--trainer.max_epocs", "1"],
        "'--trainer.max_epocs' of fit; did you mean --trainer.max_epochs",
    ),
    "text for a number": ([*STEER, f"{DATA}pairs", "many"], "pairs: expected int, not many"),
    "attribute 60 of 60": ([*STEER, f"{DATA}target", "60"], "target attribute 60 does not exist: there are 60"),
    "value 9 of 8": ([*STEER, f"{DATA}target_value", "9"], "target value 9 does not exist: there are 8"),
    "zero pairs": ([*STEER, f"{DATA}pairs", "0"], "pairs must be at least 1, not 0"),
    "negative noise": ([*STEER, f"{DATA}noise=-1"], "noise is a standard deviation and cannot be negative: -1.0"),
    "no strengths": ([*STEER, f"{MODEL}strengths", "[]"], "strengths is empty"),
    "a strategy that does not exist": (
        [*STEER, "--trainer.strategy", "foo"],
        "invalid strategy name: `strategy='foo'`",
    ),
    "an accelerator that does not exist": ([*STEER, "--trainer.accelerator", "foo"], "invalid accelerator name"),
    "no network yet": (STEER, "no toy network at checkpoints/toy/projection/best.ckpt: train one with"),
    "run outside its folder": ([*STEER, "--run", "../../elsewhere"], "a run's name is made of letters"),
    "test before fit": (["test", *STEER[1:]], "no checkpoint at checkpoints/steer_toy/mean_difference/best.ckpt"),
    "a checkpoint that does not exist": (["test", *STEER[1:], "--ckpt_path", "no.ckpt"], "no checkpoint at no.ckpt"),
}


def sentence(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The last line that a failing command prints; everything about how it fails is checked here."""
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2, error
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("lightning_steer: ")]
    assert len(lines) == 1, error
    return lines[0]


@pytest.mark.parametrize(("arguments", "expected"), BAD.values(), ids=list(BAD))
def test_mistake(arguments: list[str], expected: str, workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in sentence(capsys, arguments)


@pytest.fixture
def steer(workshop: Path, toy_checkpoints: dict[str, Path]) -> list[str]:
    """A command that works: a tiny network is in place."""
    target = workshop / "checkpoints/toy/projection/best.ckpt"
    target.parent.mkdir(parents=True)
    shutil.copy(toy_checkpoints["projection"], target)
    return [*STEER, *TINY, "--trainer.enable_progress_bar=false"]


def test_the_command_itself_works(steer: list[str]) -> None:
    assert main(steer) == 0


def test_a_site_that_does_not_exist(steer: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    message = sentence(capsys, [*steer, f"{MODEL}backbone.init_args.site", "layers.9"])
    assert "site 'layers.9' does not exist in MLP; its submodules are: layers, layers.0" in message


def test_a_network_of_another_world(steer: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    message = sentence(capsys, [*steer, f"{DATA}world_seed", "5"])
    assert "world_seed 0" in message
    assert "world_seed 5" in message


@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_a_damaged_network(damage: str, steer: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("checkpoints/toy/projection/best.ckpt")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"not a checkpoint")
    assert "is not a readable checkpoint of a toy network" in sentence(capsys, steer)


@pytest.mark.parametrize("damage", ["truncated", "text", "another method", "another shape"])
def test_a_checkpoint_that_does_not_fit(damage: str, steer: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(steer) == 0
    saved = Path("checkpoints/steer_toy/mean_difference/best.ckpt")
    more: list[str] = []
    if damage == "truncated":
        saved.write_bytes(saved.read_bytes()[:2000])
    elif damage == "text":
        saved.write_text("not a checkpoint")
    elif damage == "another method":
        more = [f"{MODEL}method", "LEACE"]
    else:
        more = [f"{MODEL}backbone.init_args.site", "layers.1"]
    capsys.readouterr()
    message = sentence(capsys, ["test", *steer[1:], *more])
    expected = {
        "another method": "something else (method MeanDifference",
        "another shape": "something else (sites layers.2",
    }
    assert expected.get(damage, "mean_difference/best.ckpt is not a readable checkpoint") in message


def test_a_log_folder_that_cannot_be_written(steer: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("logs").write_text("a file where a folder should be")
    assert "logs" in sentence(capsys, steer)


def test_a_pickle_is_not_run(steer: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    class Attack:
        def __reduce__(self) -> tuple:
            return (Path.touch, (Path("attacked"),))

    torch.save({"state_dict": {}, "network": Attack(), "world": {}}, "checkpoints/toy/projection/best.ckpt")
    assert "is not a readable checkpoint" in sentence(capsys, steer)
    assert not Path("attacked").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "no report.json below"), ("{", "is not a report"), ("{}", "lacks backbone"), ("[1]", "is not a report")],
)
def test_reports(content: str | None, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    assert report_main([str(tmp_path)]) == 2
    assert expected in capsys.readouterr().err
    assert report_main([str(tmp_path / "nowhere")]) == 2


def test_reports_stay_in_the_run_without_a_logger(steer: list[str], workshop: Path) -> None:
    before = {path.name for path in workshop.iterdir()}
    assert main([*steer, "--trainer.logger=false"]) == 0
    assert main(["test", *steer[1:], "--trainer.logger=false"]) == 0
    assert (workshop / "logs/steer_toy/mean_difference/report.json").is_file()
    assert {path.name for path in workshop.iterdir()} == before | {"logs"}
