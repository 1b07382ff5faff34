"""Work in processes of its own, commands that stop at a declared point: no test waits for time to pass."""

import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pytest
from conftest import ROOT

LIMIT = 1200
"""Seconds after which something counts as hanging: many times what a busy machine needs. Nothing waits for it."""


class Command:
    """``python -m ARGUMENTS`` with all that it starts, which ends with the ``with`` block at the latest.

    Args:
        arguments: of ``python -m``.
        folder: where its output goes, and the pipes that it is stopped by.
        stop_at: a pattern of file names and a number: before it renames a file to such a name for that time, the
            process stops (of several processes the first one) until ``go_on``; None lets it run.
    """

    def __init__(self, arguments: list[str], folder: Path, stop_at: tuple[str, int] | None = None) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "LIST_CHANGES": str(folder)}
        if stop_at is not None:
            for name in ("reached", "go"):
                os.mkfifo(folder / name)
            self.reached = os.open(folder / "reached", os.O_RDONLY | os.O_NONBLOCK)
            environment["STOP_AT"] = f"{folder}|{stop_at[0]}|{stop_at[1]}"
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "stopping"), str(ROOT)])
        command = [sys.executable, "-m", *arguments]
        with (folder / "output").open("wb") as file:
            self.process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def output(self) -> str:
        """All that it has printed."""
        return (self.folder / "output").read_text(errors="replace")

    def changes(self, rank: int) -> list[str]:
        """Files that one of its processes has opened to write, renamed or removed, with what was done to each."""
        return (self.folder / f"changes-{rank}").read_text().splitlines()

    def fail(self, what: str) -> None:
        """Fail the test, with what the command has printed."""
        pytest.fail(f"{what} ({' '.join(self.process.args)}); it had printed:\n{self.output}")  # type: ignore[arg-type]

    def wait_for_stop(self) -> None:
        """Wait until it stops at its point; fails if it ends before."""
        ended = os.pidfd_open(self.process.pid)
        ready = select.select([self.reached, ended], [], [], LIMIT)[0]
        os.close(ended)
        if self.reached not in ready:
            self.fail("it ended before its point" if ready else f"it did not come to its point in {LIMIT} s")
        os.close(self.reached)

    def go_on(self) -> None:
        """Let it go on from its point."""
        (self.folder / "go").write_bytes(b"")

    def kill(self) -> None:
        """Kill it with SIGKILL, and only what it has started lives on; fails if it has ended by itself."""
        self.process.kill()
        if self.wait() != -signal.SIGKILL:
            self.fail("it had ended before it was killed")

    def second(self) -> int:
        """Id of the process that it has started as the second one of a run."""
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes():
                return int(child)
        raise AssertionError("there is no second process")

    def wait(self) -> int:
        """Wait until it ends; returns its exit code."""
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.fail(f"it did not end in {LIMIT} s")
            raise

    def finish(self) -> str:
        """Wait until it has succeeded; returns what it printed."""
        if self.wait() != 0:
            self.fail(f"it failed with {self.process.returncode}")
        return self.output

    def wait_for_other(self, descriptor: int) -> None:
        """Wait until another process, of which this is a descriptor, has ended."""
        if not select.select([descriptor], [], [], LIMIT)[0]:
            self.fail(f"the other process of the run goes on alone after {LIMIT} s")
        os.close(descriptor)


def forked(work: Callable[[], object], output: Path) -> int:
    """Run ``work`` in a process of its own that prints into a file; returns its exit code, negative for a signal."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        for number in (1, 2):
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
