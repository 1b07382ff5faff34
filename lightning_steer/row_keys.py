"""Keys of the rows of a data module: what they hold, hashed, so that two parts or two runs can be compared."""

import copy
import json
from collections.abc import Iterable, Sequence
from typing import Any

import lightning as L
from torch import Tensor

from lightning_steer.cache.files import digest

INPUT = 16
"""Digits of a row's key that tell its input; the others tell what was learned from it."""


def part_rows(data: L.LightningDataModule) -> tuple[list[str], list[str]]:
    """Keys of the rows to fit to and of the rows to choose on; the same in every process."""
    data = _whole(data)
    return row_keys(data.train_dataloader()), row_keys(data.val_dataloader())


def held_out_rows(data: L.LightningDataModule) -> list[str]:
    """Keys of the held-out rows."""
    loaders = _whole(data).test_dataloader()
    return row_keys(loaders[0] if isinstance(loaders, list) else loaders)


def row_keys(batches: Iterable[Any]) -> list[str]:
    """24 hexadecimal digits of each row: 16 of its input, 8 of what is learned from it."""
    keys = []
    for batch in batches:
        asked, learned = batch.content
        for own, rest in zip(_rows(asked), _rows(learned), strict=True):
            keys.append(digest(own)[:INPUT] + digest(rest)[: 24 - INPUT])
    return keys


def _whole(data: L.LightningDataModule) -> L.LightningDataModule:
    """The same data outside a trainer: all rows, and no cache of what a model does with them."""
    data.setup("fit")
    alone = copy.copy(data)
    alone.trainer = None
    return alone


def _rows(columns: Sequence[Any]) -> list[bytes]:
    """Each row's content over some columns, tensors ``[B, ...]`` or lists of B plain values."""
    each = [
        [f"{column.dtype} {list(row.shape)} ".encode() + row.contiguous().numpy().tobytes() for row in column.cpu()]
        if isinstance(column, Tensor)
        else [json.dumps(value).encode() for value in column]
        for column in columns
    ]
    return [b"\n".join(parts) for parts in zip(*each, strict=True)]
