"""``steer`` that was stopped, by Ctrl-C or for good: the same command goes on, and ends as if nothing had happened."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from commands import forked
from conftest import ROOT
from test_kills import contents

import lightning_steer as ls
from lightning_steer.__main__ import main
from lightning_steer.lm.language_model import LLM
from lightning_steer.vectors import SteeringVector
from lightning_steer.workflows import command
from lightning_steer.workflows import part as parts
from lightning_steer.workflows.part import Part
from lightning_steer.workflows.search import Search
from lightning_steer.workflows.unfinished import Unfinished

BASE = str(ROOT / "checkpoints/pocket/base")
STEER = ["steer", "--llm", BASE, "--pairs", "pairs.jsonl", "--layers", "3", "4", "--strengths", "1", "2"]
OUT = Path("logs/steer/pairs")
CELLS = 2
"""Measurements of a search of two layers: each of all strengths at once."""


@pytest.fixture
def here(workshop: Path) -> Path:
    pairs = ls.read_pairs(ROOT / "configs/pairs.jsonl")
    Path("pairs.jsonl").write_text("".join(json.dumps(pair._asdict()) + "\n" for pair in pairs))
    return workshop


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command writes if nothing stops it."""
    folder = tmp_path_factory.mktemp("whole")
    pairs = str(ROOT / "configs/pairs.jsonl")
    assert main([*STEER[:4], pairs, *STEER[5:], "--out", str(folder / OUT)]) == 0
    return contents(folder / OUT)


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what is measured."""
    seen: Counter[str] = Counter()
    measure = Search._layer

    def look(self: Search, site: str, strengths: Sequence[float]) -> Any:
        seen[site] += 1
        return measure(self, site, strengths)

    monkeypatch.setattr(Search, "_layer", look)
    return seen


def stopped_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int) -> None:
    """Press Ctrl-C as something is called for the ``number``-th time."""
    calls, true = 0, getattr(owner, name)

    def call(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            signal.raise_signal(signal.SIGINT)
        return true(*given, **named)

    monkeypatch.setattr(owner, name, call)


POINTS = {
    "while the model is loaded": (LLM, "load", 1, 0),
    "at the first layer": (Search, "_layer", 1, 0),
    "at the second layer": (Search, "_layer", 2, 1),
    "before it is judged": ("lightning_steer.workflows.steer.run", "", 1, CELLS),
    "while text is written": ("lightning_steer.workflows.command.edit", "", 1, CELLS),
    "before the vector is saved": (SteeringVector, "save", 1, CELLS),
    "while files are put in place": (Path, "replace", 3, CELLS),
}


@pytest.mark.parametrize("name", POINTS)
def test_ctrl_c_leaves_a_part_that_the_same_command_goes_on_from(
    name: str, here: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    owner, attribute, number, stored = POINTS[name]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts its background jobs with Ctrl-C ignored
    with monkeypatch.context() as patched:
        if isinstance(owner, str):
            module, _, attribute = owner.rpartition(".")
            owner = __import__(module, fromlist=[attribute])
        stopped_at(patched, owner, attribute, number)
        assert main(STEER) == 130
    message = capsys.readouterr().err
    assert "stopped; the same command goes on from" in message
    assert "Traceback" not in message
    assert not (OUT / "vector.safetensors").exists()
    known = [json.loads(path.read_text())["cells"] for path in (OUT / "unfinished").glob("[0-9].json")]
    assert sum(map(len, known)) == stored
    measured = counted(monkeypatch)
    assert main(STEER) == 0
    assert sum(measured.values()) == CELLS - stored
    assert contents(OUT) == whole


def test_another_command_takes_nothing_of_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patched:
        stopped_at(patched, Search, "_layer", 2)
        assert main(STEER) == 130
    measured = counted(monkeypatch)
    assert main([*STEER, "--seed", "1"]) == 0
    assert sum(measured.values()) == CELLS
    assert not (OUT / "unfinished").exists()


def test_an_error_leaves_no_part_and_no_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(Path().rglob("*"))
    assert main([*STEER, "--budget", "1e-12"]) == 2
    assert set(Path().rglob("*")) == before
    OUT.mkdir(parents=True)
    (OUT / "note.txt").write_text("mine")
    assert main([*STEER, "--budget", "1e-12"]) == 2
    assert [path.name for path in OUT.iterdir()] == ["note.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError("no memory")])
def test_what_the_machine_lacks_leaves_what_was_finished(
    error: Exception, here: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(command, "edit", lambda *_: (_ for _ in ()).throw(error))
        with suppress(MemoryError):
            assert main(STEER) == 2
    measured = counted(monkeypatch)
    assert main(STEER) == 0
    assert sum(measured.values()) == 0
    assert contents(OUT) == whole


def test_a_folder_of_somebody_else_stays(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (OUT / "unfinished").mkdir(parents=True)
    (OUT / "unfinished/thesis.tex").write_text("mine")
    assert main(STEER) == 2
    assert "thesis.tex is not of this command" in capsys.readouterr().err
    assert (OUT / "unfinished/thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("moment", ["first layer", "second file put in place", "vector put in place"])
def test_killed_it_goes_on_too(moment: str, here: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    def kill() -> None:
        measured, put = 0, 0
        write, replace = Unfinished.known_or, Path.replace

        def known_or(self: Unfinished, place: str, measure: Callable[[], Any]) -> Any:
            nonlocal measured
            result, measured = write(self, place, measure), measured + 1
            if moment == "first layer" and measured == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        def replaced(self: Path, target: Path) -> Path:
            nonlocal put
            result, put = replace(self, target), put + 1
            if (moment.startswith("second") and put == 2) or (
                moment.startswith("vector") and target.suffix == ".safetensors"
            ):
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        Unfinished.known_or, Path.replace = known_or, replaced  # type: ignore[method-assign, assignment]
        main(STEER)

    output = tmp_path / "output"
    assert forked(kill, output) == -signal.SIGKILL, output.read_text()
    assert main(STEER) == 0
    assert contents(OUT) == whole


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": "s"}', '{"settings": "s", "cells": {"a": 1}}'])
def test_a_damaged_part_is_measured_again(content: str, tmp_path: Path) -> None:
    path = tmp_path / "0.json"
    path.write_text(content)
    assert Unfinished(path, "s").known == {}


def test_a_part_of_other_settings_is_measured_again(tmp_path: Path) -> None:
    import torch

    figures = torch.tensor([0.1, float("nan")]).double(), torch.tensor([1 / 3, float("inf")]).double()
    path = tmp_path / "0.json"
    Unfinished(path, "s").known_or("here", lambda: figures)
    known = Unfinished(path, "s").known_or("here", lambda: pytest.fail("it is known"))
    for known_values, figures_read in zip(known, figures, strict=True):
        assert torch.equal(known_values.nan_to_num(7), figures_read.nan_to_num(7))
    assert Unfinished(path, "t").known == {}


def test_the_part_of_a_living_command_is_not_taken_for_that_of_another(tmp_path: Path) -> None:
    assert not Part(tmp_path, "a").goes_on
    with pytest.raises(KeyboardInterrupt), Part(tmp_path, "a"):
        raise KeyboardInterrupt
    assert Part(tmp_path, "a").goes_on
    assert not Part(tmp_path, "b").goes_on
    assert parts.Part(tmp_path, "b").folder.is_dir()
