"""A stranger's folder cannot make a reader or a writer leave it: links, pipes and devices are refused in a sentence."""

import ast
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from lightning_steer.cache.files import locked
from lightning_steer.files import check_no_links, read_bytes, write
from lightning_steer.report.__main__ import main as report_main

SOURCES = sorted((ROOT / "lightning_steer").rglob("*.py"))
WRITES = {"write_text", "write_bytes", "savefig", "save_file", "mkstemp"}
"""Calls that open a file by its name and follow links; what writes is ``files.write``."""
ESTIMATE = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}
REPORT = {
    "experiment": "e",
    "task": "t",
    "backbone": "b",
    "method": "M",
    "seed": 0,
    "metrics": {"target_accuracy": ESTIMATE},
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file of the user's beside the stranger's folder."""
    (tmp_path / "rc").write_text("mine")
    (tmp_path / "logs/run").mkdir(parents=True)
    (tmp_path / "logs/run/report.json").write_text(json.dumps(REPORT))
    return tmp_path / "rc"


def swallowed(path: Path) -> Callable[[], None]:
    return lambda: write(path, b"theirs")


def test_a_link_under_the_name_of_a_part_is_not_followed(outside: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    for name in ("runs.md", "runs.csv", "report.html"):
        (logs / f".{name}.part").symlink_to(outside)
    assert report_main([str(logs), "--html"]) == 0
    assert outside.read_text() == "mine"
    assert (logs / "runs.csv").read_text().startswith("run,")
    assert not (logs / "runs.csv").is_symlink()


def test_the_name_that_is_written_aside_cannot_be_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[Path] = []
    rename = os.replace

    def seen(source: Path, target: Path) -> None:
        names.append(Path(source))
        rename(source, target)

    monkeypatch.setattr(os, "replace", seen)
    for _ in range(2):
        write(tmp_path / "x.json", b"{}")
    assert len(set(names)) == 2
    assert all(name.parent == tmp_path for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_what_is_no_plain_file_is_not_written_to(kind: str, outside: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "runs.csv", tmp_path / "new"
    make = {
        "link": lambda: target.symlink_to(outside),
        "dangling": lambda: target.symlink_to(elsewhere),
        "pipe": lambda: os.mkfifo(target),
        "folder": target.mkdir,
    }
    make[kind]()
    with pytest.raises(ValueError, match=r"runs\.csv is a .* remove it, or name another folder"):
        write(target, b"theirs")
    assert outside.read_text() == "mine"
    assert not elsewhere.exists()


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_a_lock_that_is_a_link_is_refused(kind: str, outside: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    if kind == "pipe":
        os.mkfifo(folder / ".lock")
    else:
        (folder / ".lock").symlink_to(outside if kind == "link" else tmp_path / "made")
    with pytest.raises(ValueError, match=r"\.lock is a "), locked(folder):
        pass
    assert not (tmp_path / "made").exists()
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("name", ["test.yaml", "fit.yaml", "report.json"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_report_shows_only_plain_files_of_its_folder(
    name: str, kind: str, outside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    (logs / "run" / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(logs / "run" / name)
    else:
        (logs / "run" / name).symlink_to(outside)
    assert report_main([str(logs), "--html"]) == 2
    output = capsys.readouterr().err
    assert name in output
    assert output.count("\n") == 1
    assert "plain file" in output
    assert not list(logs.glob("runs.*")) + list(logs.glob("report.html"))


def test_a_report_cannot_name_another_folder_for_its_configuration(outside: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/test.yaml").write_text("password")
    logs = tmp_path / "logs"
    (logs / "run/report.json").write_text(json.dumps({**REPORT, "run": "../elsewhere"}))
    assert report_main([str(logs), "--html"]) == 0
    assert "password" not in (logs / "report.html").read_text()
    assert outside.read_text() == "mine"


def test_a_plain_file_is_read_and_a_pipe_does_not_hang(outside: Path, tmp_path: Path) -> None:
    assert read_bytes(outside) == b"mine"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a pipe, socket or device, not a plain file"):
        read_bytes(tmp_path / "pipe")


def test_a_run_does_not_begin_in_a_folder_with_links(outside: Path, tmp_path: Path) -> None:
    (tmp_path / "run/parts").mkdir(parents=True)
    check_no_links(tmp_path / "run")
    (tmp_path / "run/hparams.yaml").symlink_to(outside)
    with pytest.raises(ValueError, match=r"hparams\.yaml is a link"):
        check_no_links(tmp_path / "run")


def opened(text: str) -> list[str]:
    """Calls in a source text that write to a file by its name."""
    opened_paths = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            own = isinstance(node.func, ast.Name) and name == "write_text"  # report.files.write_text
            values = [ast.unparse(value) for value in [*node.args, *(k.value for k in node.keywords)]]
            modes = [value for value in values if value in ("'w'", "'wb'", "'a'", "'x'")]
            drawn = name == "savefig" and "format" in {k.arg for k in node.keywords}
            if (name in WRITES and not own and not drawn) or (name == "open" and modes):
                opened_paths.append(f"{name} in line {node.lineno}")
    return opened_paths


def test_every_writer_is_the_one(tmp_path: Path) -> None:
    wrong = {path.name: opened(path.read_text()) for path in SOURCES if path.name != "files.py"}
    assert {name: calls for name, calls in wrong.items() if calls} == {}
    for text in ("path.write_text('x')", "open(path, 'w')", "figure.savefig(path)", "save_file(tensors, path)"):
        assert opened(text), text
