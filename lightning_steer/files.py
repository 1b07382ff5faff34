"""Read and write files in folders that may come from strangers: never through a link, and whole or not at all.

Links, pipes, sockets and devices are refused by the system call that opens, so nothing is read, written or waited for
outside the folder. Folders that are links themselves are followed: people keep ``logs`` on another disk.
"""

import os
import secrets
import stat
from pathlib import Path

PART = r"\.(?P<name>.+)\.[0-9a-f]{16}\.part"
"""Names of files that are being written; a killed process leaves one behind."""
_EXACT = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Do not follow a link, and do not wait for the other end of a pipe."""


def is_regular(path: Path) -> bool:
    """Tell whether there is a plain file of this very name: no link, folder, pipe, socket or device."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def check_regular(path: Path) -> None:
    """Raise ValueError if there is something of this name that is not a plain file."""
    if os.path.lexists(path) and not is_regular(path):
        kind = "a link" if path.is_symlink() else "a folder" if path.is_dir() else "a pipe, socket or device"
        raise ValueError(f"{path} is {kind}, not a plain file: remove it, or name another folder")


def check_no_links(folder: Path) -> None:
    """Raise ValueError if a folder holds a link, pipe, socket or device that a library might write through."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_symlink() or not path.is_dir():
            check_regular(path)


def open_regular(path: Path, flags: int) -> int:
    """Open a plain file and return its descriptor; raises ValueError if it is none, and OSError."""
    check_regular(path)
    descriptor = os.open(path, flags | _EXACT, 0o666)  # a link that appears only now is refused by O_NOFOLLOW
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path} is not a plain file: remove it, or name another folder")
    return descriptor


def read_bytes(path: Path) -> bytes:
    """Return the content of a plain file; raises ValueError if it is none, FileNotFoundError and OSError."""
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return file.read()


def read_text(path: Path) -> str:
    """Return the text of a plain file in UTF-8, what is not UTF-8 replaced; raises as :func:`read_bytes`."""
    return read_bytes(path).decode("utf-8", "replace").replace("\r\n", "\n")


def write(path: Path, content: bytes) -> None:
    """Replace a file, or make it and its folder: written beside it under a name nobody can foresee, then renamed.

    Raises:
        ValueError: there is a link, a folder, a pipe, a socket or a device of this name.
        OSError: in a sentence that names the path; what was there stays.
    """
    check_regular(path)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _EXACT, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # the content is on the disk before the name is
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(
            f"cannot write {path} ({error.strerror}): make room, or name another folder; all that is finished stays, "
            "and the same command goes on from there"
        ) from error
