"""The finished part of a command that was stopped: the same command finds it, and goes on from there."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from lightning_steer.errors import UserError
from lightning_steer.escapes import say
from lightning_steer.files import folder_aside, is_regular, read_bytes
from lightning_steer.report.files import write_text


class Part:
    """The folder ``unfinished`` in a command's own, while the command runs: ``with Part(...) as part``.

    Ctrl-C, and whatever kills the process, leave it there, as does a full disk or memory if something was finished. An
    error in what was asked for removes it, and folders that were made for it.

    Args:
        out: the command's folder.
        command: the command with all its options, as text.
    """

    def __init__(self, out: Path, command: str) -> None:
        self.out, self.command, self.folder = out, command, out / "unfinished"
        self._about = self.folder / "command.json"

    @property
    def goes_on(self) -> bool:
        """Whether this very command was stopped here before."""
        return is_regular(self._about) and read_bytes(self._about) == self.command.encode()

    def __enter__(self) -> "Part":
        self._made = [path for path in (self.out, *self.out.parents) if not path.exists()]
        known = re.compile(r"command\.json|\d+\.json|\..*")
        if strange := [path for path in self._content() if not known.fullmatch(path.name)]:
            raise UserError(f"{strange[0]} is not of this command: move {self.folder} away, or name another folder")
        if not self.goes_on:
            shutil.rmtree(self.folder, ignore_errors=True)  # of another command
            write_text(self._about, self.command)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        finished = any(path.suffix == ".json" and path != self._about for path in self._content())
        if isinstance(error, KeyboardInterrupt):
            say(f"lightning_steer: stopped; the same command goes on from {self.folder}", error=True)
            return
        if finished and error is not None and not isinstance(error, ValueError):  # of the machine, not of the command
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in self._made if error is not None else ():
            with suppress(OSError):  # there is something else by now
                path.rmdir()

    def _content(self) -> list[Path]:
        return list(self.folder.iterdir()) if self.folder.is_dir() else []

    @contextmanager
    def results(self) -> Iterator[Path]:
        """Make a folder for results, which is removed again, and with what dead processes have left of it."""
        with folder_aside(self.folder, "results") as folder:
            yield folder

    def publish(self, folder: Path, last: str) -> None:
        """Move all files of a folder into the command's own, the one named ``last`` at the end, and not beside others.

        Args:
            folder: what :meth:`results` gave.
            last: name of the file by which the result is known; an earlier one goes first.
        """
        (self.out / last).unlink(missing_ok=True)
        for path in sorted(folder.iterdir(), key=lambda path: (path.name == last, path.name)):
            path.replace(self.out / path.name)
