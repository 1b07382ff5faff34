"""What a process does to files, seen as it happens; Python imports this at its start, if it is on its path.

``STOP_AT`` is a folder with the pipes ``reached`` and ``go``, a pattern of file names, and a number: where a process is
about to rename a file to such a name for that time, it writes a line into the first pipe, and it goes on when the
second one is opened and closed. ``LIST_CHANGES`` is a folder into which every process lists what it changes.
"""

import fnmatch
import os
import sys
from collections.abc import Callable

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
RANK = os.environ.get("LOCAL_RANK", "0")


def watch(act: Callable[[str, str, str], None]) -> None:
    """Call ``act(event, path, source)`` before this process opens a file to write, removes or renames one.

    The event is ``open``, ``remove`` or ``rename``, from ``source`` to ``path``; else ``source`` is empty.
    """

    def look(event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)) and arguments[2] & WRITING:
            act("open", os.fsdecode(arguments[0]), "")
        elif event == "os.remove":
            act("remove", os.fsdecode(arguments[0]), "")
        elif event == "os.rename":
            act("rename", os.fsdecode(arguments[1]), os.fsdecode(arguments[0]))

    sys.addaudithook(look)


def _stop(folder: str, pattern: str, number: int) -> None:
    left = number

    def act(event: str, path: str, _source: str) -> None:
        nonlocal left
        if event == "rename" and fnmatch.fnmatch(os.path.basename(path), pattern):
            left -= 1
            if left == 0:
                with open(os.path.join(folder, "reached"), "w") as pipe:
                    pipe.write("reached\n")
                with open(os.path.join(folder, "go")) as pipe:
                    pipe.read()

    watch(act)


def _list(folder: str) -> None:
    listing = os.open(os.path.join(folder, f"changes-{RANK}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def act(event: str, path: str, _source: str) -> None:
        os.write(listing, f"{event} {os.path.abspath(path)}\n".encode())

    watch(act)


if "STOP_AT" in os.environ and RANK == "0":  # the second process of a run writes as well
    _folder, _pattern, _number = os.environ["STOP_AT"].split("|")
    _stop(_folder, _pattern, int(_number))
if "LIST_CHANGES" in os.environ:
    _list(os.environ["LIST_CHANGES"])
