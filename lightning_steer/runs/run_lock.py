"""One fit of a name at a time: a lock that goes with its process, however that ends."""

import errno
import os
from pathlib import Path

from lightning_steer.errors import UserError
from lightning_steer.files import open_regular

try:
    import fcntl
except ImportError:  # Windows has no such lock: a name must not be fitted twice at once there
    fcntl = None

NAME = ".fit.lock"


class RunLock:
    """A folder that one process writes its results into.

    The lock is on a file in the folder. A killed process leaves the file behind without the lock; the process that
    holds the lock removes it.

    Args:
        folder: the folder, which is made if need be.

    Raises:
        ValueError: another process that lives holds it.
        OSError: nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.descriptor = folder / NAME, None
        while fcntl is not None and self.descriptor is None:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = open_regular(self.path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_current(descriptor):  # else the one who held it has just removed it
                    self.descriptor: int | None = descriptor
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise UserError(
                        f"{folder} is being written by another fit of this name: wait until it ends, or name this one "
                        "with --experiment or --run"
                    ) from None
                return  # a file system without locks
            finally:
                if self.descriptor is None:
                    os.close(descriptor)

    def release(self) -> None:
        """Let others have it; does nothing the second time."""
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            try:
                self.path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self.path))
        except FileNotFoundError:
            return False
