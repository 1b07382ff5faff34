"""Token batches: rows of text in batches of similar length, the same for any number of processes."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

IGNORED = -100
"""Label of a token that is not predicted, as in transformers."""


class TextRow(NamedTuple):
    """One row of training text."""

    ids: Sequence[int]
    """Tokens, begin and end marks included."""
    start: int = 1
    """Index of the first predicted token, at least 1."""
    logp: float = float("nan")
    """Exact log-probability of the predicted tokens, NaN where it is not known."""


class TextBatch(NamedTuple):
    """A batch of text, or one process's share of it."""

    ids: Tensor
    """``[B, T]`` int64, right-padded."""
    labels: Tensor
    """``[B, T]`` int64: ids of the predicted tokens, else -100."""
    total: Tensor
    """Number of labels in the whole batch, over all processes."""
    logp: Tensor
    """``[B]`` float64: exact log-probability of each row's labels, NaN where it is not known."""


def together(rows: Sequence[TextRow], pad: int, own: slice = slice(None)) -> TextBatch:
    """Return this process's share ``own`` of the batch of these rows."""
    total = sum(len(row.ids) - row.start for row in rows)
    rows = rows[own]
    longest = max((len(row.ids) for row in rows), default=1)
    ids, labels = np.full((len(rows), longest), pad), np.full((len(rows), longest), IGNORED)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        labels[i, row.start : len(row.ids)] = row.ids[row.start :]
    logp = torch.tensor([row.logp for row in rows], dtype=torch.float64)
    return TextBatch(torch.from_numpy(ids), torch.from_numpy(labels), torch.tensor(total), logp)


def by_length(rows: Sequence[TextRow], groups: int) -> list[list[TextRow]]:
    """Sort rows into groups of similar length and about equal numbers of tokens; equal lengths keep their order."""
    rows = sorted(rows, key=lambda row: len(row.ids))
    ends = np.cumsum([len(row.ids) for row in rows])
    group = np.arange(1, groups)
    cuts = np.searchsorted(ends, ends[-1] * group / groups, side="right")
    cuts = np.maximum.accumulate(np.clip(cuts - group, 0, len(rows) - groups)) + group  # no group is empty
    cuts = [0, *cuts.tolist(), len(rows)]
    return [rows[a:b] for a, b in pairwise(cuts)]


class TextBatches(Dataset[TextBatch]):
    """Item j is a batch. Rows come in blocks; a block's rows are sorted into batches of similar length, then shuffled.

    A batch depends only on j (and on ``rows``), so training can resume anywhere and run on any number of processes.

    Args:
        rows: returns the rows of the block with a number.
        per_block: batches in a block.
        pad: the token that fills up rows.
        own: the rows of a batch that this process takes.
        seed: shuffles the batches of a block; null keeps them from short to long.
    """

    def __init__(
        self, rows: Callable[[int], Sequence[TextRow]], per_block: int, pad: int, own: slice, seed: int | None
    ) -> None:
        self.rows, self.per_block, self.pad, self.own, self.seed = rows, per_block, pad, own, seed
        self.kept: tuple[int, list[list[TextRow]]] = (-1, [])

    def __len__(self) -> int:
        return self.per_block

    def __getitem__(self, j: int) -> TextBatch:
        block, batch = divmod(j, self.per_block)
        if block != self.kept[0]:
            self.kept = (block, by_length(self.rows(block), self.per_block))
        if self.seed is not None:
            order = np.random.default_rng(np.random.SeedSequence((self.seed, block))).permutation(self.per_block)
            batch = order[batch]
        return together(self.kept[1][batch], self.pad, self.own)
