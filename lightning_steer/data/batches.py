"""Share batches over processes: the data alone determine the batches; each process takes every world-th row of each.

Every process therefore makes equally many steps, no row is repeated to fill up a process (as Lightning's distributed
sampler does), and a run on N processes sees the same batches as a run on one.
"""

from collections.abc import Iterator

import lightning as L
from torch.utils.data import Sampler


def share(data: L.LightningDataModule) -> slice:
    """Return the slice of a batch that this process takes; outside a trainer, all rows."""
    return slice(None) if data.trainer is None else slice(data.trainer.global_rank, None, data.trainer.world_size)


class Onwards(Sampler[int]):
    """Indices that keep counting from epoch to epoch, so that an endless stream never repeats.

    Args:
        count: items of an epoch.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        # A generator reads the epoch when the first index is requested. Lightning creates the iterator of a resumed
        # run before it sets the epoch; reading it then would repeat the first epoch's batches.
        for step in range(self.count):
            yield self.epoch * self.count + step

    def __len__(self) -> int:
        return self.count
