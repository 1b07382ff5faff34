"""Files that are whole or absent, known by their content, and written by one process at a time."""

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path


def digest(content: bytes | Path) -> str:
    """sha256 in hexadecimal digits of bytes, or of a file, read piece by piece."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    found, piece = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with content.open("rb", buffering=0) as file:
        while read := file.readinto(piece):
            found.update(piece[:read])
    return found.hexdigest()


def digests(files: Sequence[Path]) -> list[str]:
    """sha256 of files, several at once: hashing is what verifying waits for."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(digest, files))


def write(path: Path, content: bytes) -> None:
    """Write a file aside, then rename it; raises OSError in a sentence, and leaves what was there as it was."""
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_bytes(content)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OSError(
            f"cannot write {path} ({error.strerror}): make room, or name another folder; all that is finished stays, "
            "and the same command goes on from there"
        ) from error


@contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """While the block runs, no other process builds a cache in this folder, which is made if need be.

    The lock goes with the process, however that ends. Raises OSError if another process holds it and ``wait`` is off.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows has no such lock: one folder must not be built twice at once there
        yield
        return
    try:
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
        yield  # nothing can be written here: a cache that matches can still be read
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
