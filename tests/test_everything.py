"""``make everything`` names commands that exist, goes on where it was stopped, and begins anew with other code."""

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ROOT

from lightning_steer.studies import everything
from lightning_steer.studies.everything import LOG, STEPS, StudyStep, main

THREE = (StudyStep("one", 1, ("a",)), StudyStep("two", 2, ("b",)), StudyStep("three", 3, ("c",)))


def test_every_command_exists() -> None:
    for step in STEPS:
        if step.command[0] == "-m":
            assert importlib.util.find_spec(step.command[1]) is not None
        else:
            assert (ROOT / step.command[0]).is_file()
    for page in everything.PAGES:
        assert "<!-- logs/" in (ROOT / f"docs/{page}.md").read_text()


def test_every_study_is_there() -> None:
    """A study with a command of its own is a step, but for those that need other data, a network, or long training."""
    others = {"demo", "everything", "papers", "pocket", "published"}
    named = {step.command[1].split(".")[2] for step in STEPS if "studies" in "".join(step.command)}
    folder = ROOT / "lightning_steer/studies"
    commands = {path.parent.name for path in folder.glob("*/__main__.py")}
    assert commands - others == named


def test_a_dry_run_runs_nothing(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry-run"], THREE, lambda _: pytest.fail("it ran")) == 0
    assert "3 of 3 are left: about 6 min" in capsys.readouterr().out
    assert not LOG.exists()


def test_it_goes_on_where_it_was_stopped(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def run(command: Sequence[str], fails: str = "") -> int:
        ran.append(command[0])
        return 3 if command[0] == fails else 0

    assert main([], THREE, lambda command: run(command, "b")) == 3
    assert ran == ["a", "b"]
    assert list(json.loads(LOG.read_text())) == ["one"]
    assert main([], THREE, run) == 0
    assert ran == ["a", "b", "b", "c"]
    assert "2 of 3 are left: about 5 min" in capsys.readouterr().out
    assert main([], THREE, run) == 0
    assert len(ran) == 4
    monkeypatch.setattr(everything, "code", lambda: "other")
    assert main([], THREE, run) == 0
    assert len(ran) == 7


@pytest.mark.skipif(shutil.which("make") is None, reason="without make")
def test_make_passes_the_dry_run_on() -> None:
    """``make everything --dry-run`` shows the command with the option: its line runs even then, and runs nothing."""
    recipe = (ROOT / "Makefile").read_text().split("\neverything:")[1].split("\n\n")[0]
    assert "\t+@" in recipe
    rules = "VENV=x\nRUN=echo\nREADY=\neverything:" + recipe
    for options, expected in ([], "studies.everything\n"), (["--dry-run"], "studies.everything --dry-run\n"):
        made = subprocess.run(
            ["make", "--no-print-directory", "-f", "-", "everything", *options],
            input=rules,
            capture_output=True,
            text=True,
            check=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        )
        assert made.stdout.endswith(expected)
