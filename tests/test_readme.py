"""Every command and every block of code in the README works as it stands there."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from lightning_steer.__main__ import main

TEXT = (ROOT / "README.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


COMMANDS = [line.split("#")[0].strip() for block in blocks("console") for line in block.splitlines()]
OURS = [command for command in COMMANDS if command.startswith("python -m lightning_steer ")]
TARGETS = [command.split()[1] for command in COMMANDS if command.startswith("make ")]


def test_nothing_is_left_out() -> None:
    assert {"demo", "test"} <= set(TARGETS)
    assert len(OURS) + len(TARGETS) == len([command for command in COMMANDS if command])


@pytest.mark.parametrize("target", TARGETS)
def test_targets_exist(target: str) -> None:
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all commands were given, in their order."""
    folder = tmp_path_factory.mktemp("used")
    for name in ("configs", "README.md"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "pocket").symlink_to(ROOT / "checkpoints" / "pocket")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in OURS:
            assert main(shlex.split(command)[3:]) == 0, command
    return folder


def test_commands_run_in_their_order(used: Path) -> None:
    reports = list((used / "logs").rglob("report.json"))
    assert reports
    for path in reports:
        assert json.loads(path.read_text())["metrics"]


def test_the_yaml_runs_on_a_user_s_model_and_pairs(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands there, but for the name of the model and its layers; the pairs are like the line that is shown."""
    (extra,), (shown,) = blocks("yaml"), re.findall(r"`(\{\"prompt.*?\})`", TEXT, re.DOTALL)
    pair = json.loads(shown)
    lines = [json.dumps({**pair, "prompt": f"{pair['prompt']} {i}"}) for i in range(12)]
    assert "my/model, layers: [12, 16]" in extra
    monkeypatch.chdir(used)
    Path("my_pairs.jsonl").write_text("\n".join(lines))
    Path("mine.yaml").write_text(extra.replace("my/model, layers: [12, 16]", "checkpoints/pocket/base, layers: [1, 2]"))
    configs = ["configs/steer_behaviour.yaml", "configs/methods/mean_difference.yaml", "mine.yaml"]
    given = [part for config in configs for part in ("--config", config)]
    for command in ("fit", "test"):
        assert main([command, *given, "--experiment=mine", "--model.init_args.resamples=50"]) == 0
    report = json.loads(Path("logs/mine/mean_difference/report.json").read_text())
    assert "my_pairs" in report["task"]


def test_the_python_runs(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(used)
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert "edit" in names


def test_the_python_example_changes_the_text_as_it_says(
    used: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(used)
    example = blocks("python")[0]
    exec(compile(example, "README.md", "exec"), {})
    written = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert written == re.findall(r"^print.*# (.*)$", example, re.MULTILINE)
    assert len(set(written)) == 2
