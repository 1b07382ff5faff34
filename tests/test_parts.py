"""What a killed process has half written is removed by the next one to write there; what a living one writes is not."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import forked

from lightning_steer.files import folder_aside, remove_dead_parts, write


def test_parts_of_dead_processes_are_removed_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    """One process is killed and another stopped while both write the same file; a third writes it to its end."""
    path, pipes = tmp_path / "x.json", [os.pipe() for _ in range(2)]

    def stop() -> None:
        os.write(pipes[0][1], b"!")
        os.read(pipes[1][0], 1)

    assert forked(lambda: write(path, b"1", lambda: os.kill(os.getpid(), signal.SIGKILL)), tmp_path / "out") == -9
    dead = [part for part in tmp_path.iterdir() if part.suffix == ".part"]
    assert len(dead) == 1
    living = os.fork()
    if living == 0:
        os._exit(forked_write(path, stop))
    os.read(pipes[0][0], 1)
    assert not dead[0].exists(), "the second process has removed it"
    write(path, b"3")
    assert len([part for part in tmp_path.iterdir() if part.suffix == ".part"]) == 1, "the second one lives"
    other = tmp_path / f".y.json.{'0' * 16}.part"
    other.write_bytes(b"")
    os.write(pipes[1][1], b"!")
    assert os.waitpid(living, 0)[1] == 0
    assert path.read_bytes() == b"2"
    write(path, b"4")
    assert sorted(part.name for part in tmp_path.iterdir()) == [other.name, "out", "x.json"]


def forked_write(path: Path, stop: Callable[[], None]) -> int:
    try:
        write(path, b"2", stop)
    except BaseException:
        return 1
    return 0


def test_a_part_that_is_taken_for_dead_before_it_is_locked_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making a part and locking it another process may remove it."""
    path, calls = tmp_path / "x.json", []

    def lock(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) < 3:
            remove_dead_parts(tmp_path, path.name)

    monkeypatch.setattr("lightning_steer.files._lock", lock)
    write(path, b"{}")
    assert len(calls) == 3
    assert {part.name: part.read_bytes() for part in tmp_path.iterdir()} == {"x.json": b"{}"}


def test_folders_of_dead_processes_are_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    def die() -> None:
        with folder_aside(tmp_path / "model", "writing") as aside:
            (aside / "weights").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    assert forked(die, tmp_path / "out") == -signal.SIGKILL
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    (tmp_path / "model" / f".writing.{'0' * 16}.part").symlink_to(tmp_path / "mine")
    with folder_aside(tmp_path / "model", "writing") as first, folder_aside(tmp_path / "model", "writing") as second:
        assert len(list((tmp_path / "model").iterdir())) == 3, "the link, and two that live"
        assert first != second
    assert [path.name for path in (tmp_path / "model").iterdir()] == [f".writing.{'0' * 16}.part"]
    assert (tmp_path / "mine/file").read_text() == "mine"
