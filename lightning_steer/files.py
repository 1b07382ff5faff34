"""Read and write files in folders that may come from strangers: never through a link, and whole or not at all.

Links, pipes, sockets and devices are refused by the system call that opens, so nothing is read, written or waited for
outside the folder. Folders that are links themselves are followed: people keep ``logs`` on another disk.
"""

import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lightning_steer.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

PART = r"\.(?P<name>.+)\.[0-9a-f]{16}\.part"
"""Names of what is being written; a killed process leaves one behind, which the next one to write there removes."""
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
        raise UserError(f"{path} is {kind}, not a plain file: remove it, or name another folder")


def check_no_links(folder: Path) -> None:
    """Raise ValueError if a folder holds a link, pipe, socket or device that a library might write through."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_symlink() or not path.is_dir():
            check_regular(path)


def check_folder(folder: Path) -> None:
    """Raise ValueError if a folder cannot be made because a file is in its way."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"{existing} is a file, where a folder is needed: remove it, or name another folder")


def open_regular(path: Path, flags: int) -> int:
    """Open a plain file and return its descriptor; raises ValueError if it is none, and OSError."""
    check_regular(path)
    descriptor = os.open(path, flags | _EXACT, 0o666)  # a link that appears only now is refused by O_NOFOLLOW
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path} is not a plain file: remove it, or name another folder")
    return descriptor


def read_bytes(path: Path) -> bytes:
    """Return the content of a plain file; raises ValueError if it is none, FileNotFoundError and OSError."""
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return file.read()


def read_text(path: Path) -> str:
    """Return the text of a plain file in UTF-8, what is not UTF-8 replaced; raises as :func:`read_bytes`."""
    return read_bytes(path).decode("utf-8", "replace").replace("\r\n", "\n")


def write(path: Path, content: bytes | memoryview, before_rename: Callable[[], None] | None = None) -> None:
    """Replace a file, or make it and its folder: written beside it under a name nobody can foresee, then renamed.

    What killed processes have left of the same file is removed first.

    Args:
        path: the file.
        content: all that it will hold.
        before_rename: called when all is on the disk, and only the name is missing.

    Raises:
        ValueError: there is a link, a folder, a pipe, a socket or a device of this name.
        OSError: in a sentence that names the path; what was there stays.
    """
    check_regular(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_dead_parts(path.parent, path.name)
        while not _write_and_rename(path, content, before_rename):
            pass
    except OSError as error:
        raise OSError(
            f"cannot write {path} ({error.strerror}): make room, or name another folder; all that is finished stays, "
            "and the same command goes on from there"
        ) from error


def _write_and_rename(path: Path, content: bytes | memoryview, before_rename: Callable[[], None] | None) -> bool:
    """Return False if another process removed the part, which it can in the moment before the part is locked."""
    part = _part(path.parent, path.name)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _EXACT, 0o666)
    try:
        _lock(descriptor)
        with os.fdopen(descriptor, "wb", closefd=fcntl is None) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # the content is on the disk before the name is
        if before_rename is not None:
            before_rename()
        try:
            os.replace(part, path)
        except FileNotFoundError:
            return False
        return True
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        if fcntl is not None:  # Windows renames no file that is open
            os.close(descriptor)


@contextmanager
def folder_aside(folder: Path, name: str) -> Iterator[Path]:
    """Make a folder in a folder for libraries to write into, and remove it afterwards; a dead process's one as well."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_dead_parts(folder, name)
    part = _part(folder, name)
    part.mkdir()
    descriptor = None if fcntl is None else os.open(part, os.O_RDONLY | _EXACT)
    try:
        if descriptor is not None:
            _lock(descriptor)
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def remove_dead_parts(folder: Path, name: str) -> None:
    """Remove what killed processes have left of a file or folder that they were writing.

    A part is locked as long as its process lives, and the lock goes with the process, however that ends. Where the
    system or the file system has no locks, nothing is removed.
    """
    for entry in list(os.scandir(folder)):
        match = re.fullmatch(PART, entry.name)
        if match and match["name"] == name:
            remove_dead_part(Path(entry.path))


def remove_dead_part(part: Path) -> None:
    """Remove a part unless its process lives."""
    if fcntl is None:
        return
    with suppress(OSError):  # it is locked, was renamed, is a link, or belongs to somebody else
        descriptor = os.open(part, os.O_RDONLY | _EXACT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                shutil.rmtree(part)
            else:
                part.unlink()
        finally:
            os.close(descriptor)


def _part(folder: Path, name: str) -> Path:
    return folder / f".{name}.{secrets.token_hex(8)}.part"


def _lock(descriptor: int) -> None:
    """Mark a part as that of a living process."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
