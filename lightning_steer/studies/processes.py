"""Run the parts of a study in several processes."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager

import torch

Run = Callable[[Callable[[str], None], list[str]], Iterable[None]]


@contextmanager
def side_by_side(processes: int) -> Iterator[Run]:
    """Run work on names in this process, or in several processes of one thread each.

    Small networks gain little from threads.
    """
    if processes == 1:
        yield map
        return
    os.environ["TQDM_DISABLE"] = "1"  # progress bars of several processes would overwrite each other
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, fresh, torch.set_num_threads, (1,)) as pool:
        yield lambda work, names: (done.result() for done in as_completed([pool.submit(work, name) for name in names]))
