"""Hash files, and lock folders so that one process writes at a time."""

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from lightning_steer.files import check_folder, open_regular, write

__all__ = ["digest", "digests", "locked", "write"]


def digest(content: bytes | Path) -> str:
    """Return the sha256 of bytes, or of a file that is read piece by piece, in hexadecimal digits."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    hashed, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with content.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hashed.update(buffer[:count])
    return hashed.hexdigest()


def digests(files: Sequence[Path]) -> list[str]:
    """Return the sha256 of files, several at a time: hashing dominates verification."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(digest, files))


@contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Keep other processes from building a cache in this folder, which is created if needed, inside the block.

    The lock ends with the process. Raises OSError if another process holds it and ``wait`` is false,
    and ValueError if the folder's ``.lock`` is a link or not a plain file.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows has no such lock: a folder must not be built by two processes there
        yield
        return
    try:
        lock = open_regular(folder / ".lock", os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
        yield  # the folder is read-only: a matching cache can still be read
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise BlockingIOError(f"another process is recording into {folder}: wait until it is done") from None
            print(f"Waiting for another process that is recording into {folder}.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
