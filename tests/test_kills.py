"""Killed at every point where a command changes a file, the same command ends as if nothing had happened."""

import json
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from commands import forked
from conftest import ROOT
from stopping.sitecustomize import watch
from test_cli import STEER, TRAIN

from lightning_steer.__main__ import main
from lightning_steer.files import PART
from lightning_steer.report.__main__ import main as report_main
from lightning_steer.runs import provenance, saving

FIT = [*TRAIN, "--trainer.max_epochs=2", "--data.init_args.steps_per_epoch=5"]
TEXT = ["--trainer.max_epochs=1", "--data.init_args.val_documents=30", "--trainer.enable_progress_bar=false"]
TEXT += ["--data.init_args.steps_per_epoch=2", "--data.init_args.tokens_per_step=100"]
CACHE = ["predict", "--config", "configs/cache.yaml", "--data.init_args.texts_per_shard=20"]
FITTED = "checkpoints/steer_toy/mean_difference/best.ckpt"
TENSORBOARD = re.compile(r"\.tfevents\.|^hparams\.yaml$")
"""A log that every start adds a file to, and what its logger has to say of a run, which is ``{}``: nothing reads it."""


class Line(NamedTuple):
    """A command, those that come before it, and the names of all files that it changes."""

    arguments: list[str]
    before: list[list[str]]
    names: set[str]


COMMANDS = {
    "fit a network": Line(FIT, [], {"best.ckpt", "fit.yaml", "unfinished.ckpt", ".fit.lock"}),
    "fit a method": Line(["fit", *STEER], [FIT], {"best.ckpt", "fit.yaml", "unfinished.ckpt", ".fit.lock"}),
    "fit a language model": Line(
        ["fit", "--config", "configs/pocket.yaml", *TEXT],
        [],
        {"best.ckpt", "fit.yaml", "unfinished.ckpt", ".fit.lock", "model.safetensors", "config.json"}
        | {"generation_config.json", "tokenizer.json", "tokenizer_config.json"},
    ),
    "test": Line(
        ["test", *STEER],
        [FIT, ["fit", *STEER]],
        {"test.yaml", "report.json", "report.md", "outcomes.parquet"}
        | {f"{name}.{kind}" for name in ("dose_response", "drift", "pairs") for kind in ("png", "svg")},
    ),
    "predict": Line(
        ["predict", *STEER], [FIT, ["fit", *STEER]], {"predict.yaml", "predictions.json", "predictions-0.jsonl"}
    ),
    "record": Line(CACHE, [], {"predict.yaml", ".lock", "manifest.json", "SHARD.safetensors"}),
    "export": Line(["export", FITTED.rpartition("/")[0], "v.safetensors"], [FIT, ["fit", *STEER]], {"v.safetensors"}),
    "report": Line(
        ["report", "logs", "--html"],
        [FIT, ["fit", *STEER], ["test", *STEER]],
        {"runs.md", "runs.csv", "report.html"},
    ),
}


class Point(NamedTuple):
    """Something that a command does to a file: ``event`` to ``path`` for the ``number``-th time."""

    event: str
    path: str
    number: int

    @property
    def moments(self) -> tuple[str, ...]:
        """Just before it, amid writing the file, just after it."""
        return {"rename": ("before", "amid", "after"), "remove": ("before", "after"), "open": ("amid",)}[self.event]


def points_of(act: Callable[[Point, str], None]) -> None:
    """Call ``act(point, source)`` before this process does something to a file in its working folder."""
    folder, seen, acting = os.getcwd() + os.sep, Counter[tuple[str, str]](), False

    def look(event: str, path: str, source: str) -> None:
        nonlocal acting
        path = os.path.abspath(path)
        name = os.path.basename(path)
        aside = event == "open" and (re.fullmatch(PART, name) or re.search(r"/\.writing\.[0-9a-f]{16}\.part/", path))
        if acting or aside or not path.startswith(folder) or TENSORBOARD.search(name):
            return  # what is written aside is named by the renaming
        if event == "remove" and not os.path.lexists(path):
            return
        acting, key = True, (event, path.removeprefix(folder))
        seen[key] += 1
        act(Point(*key, seen[key]), source)
        acting = False

    watch(look)


def run(arguments: list[str]) -> None:
    """Give a command in the working folder; raises AssertionError if it fails."""
    assert (report_main(arguments[1:]) if arguments[0] == "report" else main(arguments)) == 0


def list_points(arguments: list[str], listing: Path) -> None:
    """Give a command, and write all its points into a file."""
    points: list[Point] = []
    points_of(lambda point, _: points.append(point))
    run(arguments)
    listing.write_text(json.dumps(points))


def run_until(last: Point, moment: str, content: bytes, arguments: list[str]) -> None:
    """Give a command in a process that is killed at a moment of a point."""

    def act(point: Point, source: str) -> None:
        if point != last:
            return
        if moment == "amid":
            path = source or point.path
            Path(path).write_bytes(content[: len(content) // 2])
        elif moment == "after" and source:
            os.rename(source, point.path)
        elif moment == "after":
            os.remove(point.path)
        os.kill(os.getpid(), signal.SIGKILL)

    points_of(act)
    run(arguments)


def content(path: Path) -> Any:
    """What a file holds; of a checkpoint what is read again, as its bytes hold times."""
    if path.suffix != ".ckpt":
        return path.read_bytes()
    saved = saving.load(path)
    state = {name: value.tolist() for name, value in saved["state_dict"].items()}
    return repr((state, saved["record"], saved.get(provenance.KEY)))  # NaN is not equal to itself


def contents(folder: Path) -> dict[str, Any]:
    """All files of a folder, hidden ones as well, but for TensorBoard's logs and links."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not TENSORBOARD.search(path.name)]
    return {str(path.relative_to(folder)): content(path) for path in paths if "configs" not in path.parts}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_was_killed_ends_as_if_it_had_not_been(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(name, tmp_path, monkeypatch, lambda _: True)


def test_a_fit_that_was_killed_while_it_wrote_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick form: all moments of a single point."""
    check("fit a method", tmp_path, monkeypatch, lambda point: point.event == "rename" and "best" in point.path)


def check(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: Callable[[Point], bool]) -> None:
    """Kill a command at every moment of each chosen point, and give it again."""
    line, base, output, listing = COMMANDS[name], tmp_path / "base", tmp_path / "output", tmp_path / "points"
    base.mkdir()
    (base / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(base)
    for arguments in line.before:
        assert forked(lambda arguments=arguments: run(arguments), output) == 0, output.read_text()
    whole = tmp_path / "whole"
    shutil.copytree(base, whole, symlinks=True)
    monkeypatch.chdir(whole)
    assert forked(lambda: list_points(line.arguments, listing), output) == 0, output.read_text()
    points = [Point(*point) for point in json.loads(listing.read_text())]
    shard = re.compile(r"[0-9a-f]{12}-\d{5}-[0-9a-f]{12}")
    assert {shard.sub("SHARD", Path(point.path).name) for point in points} == line.names, "every file is declared"
    expected, faults, hit = contents(whole), [], 0
    for point in filter(chosen, points):
        for moment in point.moments:
            folder = tmp_path / "killed"
            shutil.copytree(base, folder, symlinks=True)
            monkeypatch.chdir(folder)
            output.unlink(missing_ok=True)
            final = whole / point.path
            held = final.read_bytes() if final.exists() else b"\0" * 1000  # what is removed in the end
            code = forked(lambda p=point, m=moment, h=held: run_until(p, m, h, line.arguments), output)
            assert code == -signal.SIGKILL, f"{point} {moment}: it was not killed but ended with {code}"
            hit += 1
            code = forked(lambda: run(line.arguments), output)
            after = contents(folder)
            odd = sorted(path for path in expected.keys() | after.keys() if expected.get(path) != after.get(path))
            if code or odd:
                faults.append(f"{point} {moment}: exit code {code}, {odd} differ; {output.read_text()[-2000:]}")
            monkeypatch.chdir(tmp_path)
            shutil.rmtree(folder)
    assert not faults, "\n".join(faults)
    assert hit
    print(f"{name}: {hit} kills at {len(points)} points")
