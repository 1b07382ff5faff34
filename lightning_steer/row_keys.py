"""Keys of the rows of a data module: what they hold, hashed, so that two parts or two runs can be compared.

Text and whole numbers are hashed as they are. Numbers that were computed never are: their last bits depend on the
processor (``torch.randn`` gives others with AVX2 than without), so generated rows are told by what generates them.
"""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import lightning as L
from torch import Tensor

from lightning_steer.cache.files import digest

INPUT = 16
"""Digits of a row's key that tell its input; the others tell what was learned from it."""
STREAM = "~"
"""Begins the only key of rows that are generated without end."""


def part_rows(data: L.LightningDataModule) -> tuple[list[str], list[str]]:
    """Keys of the rows to fit to and of the rows to choose on; the same in every process."""
    data = _whole(data)
    if hasattr(data, "row_parts"):
        fit, select, _ = map(_keys, data.row_parts())  # type: ignore[operator]
        return fit, select
    return row_keys(data.train_dataloader()), row_keys(data.val_dataloader())


def held_out_rows(data: L.LightningDataModule) -> list[str]:
    """Keys of the held-out rows; none where the data have no rows that are held out."""
    data = _whole(data)
    if hasattr(data, "row_parts"):
        return _keys(data.row_parts()[2])  # type: ignore[operator]
    loaders = data.test_dataloader()
    return row_keys(loaders[0] if isinstance(loaders, list) else loaders)


def row_keys(batches: Iterable[Any]) -> list[str]:
    """24 hexadecimal digits of each row: 16 of its input, 8 of what is learned from it; raises ValueError."""
    keys = []
    for batch in batches:
        if not hasattr(batch, "content"):
            raise ValueError(
                f"rows of a {type(batch).__name__} cannot be told apart: give its class a `content`, or the data "
                "module `row_parts`, as docs/adding-a-dataset.md shows"
            )
        asked, learned = batch.content
        for own, rest in zip(_rows(asked), _rows(learned), strict=True):
            keys.append(_key(own, rest))
    return keys


def phrase(keys: Sequence[str]) -> str:
    """How many rows these are, and the first digits of their sha256."""
    of_all = digest(repr(list(keys)).encode())[:12]
    return f"generated rows {of_all}" if list(keys)[:1] and keys[0].startswith(STREAM) else f"{len(keys)} rows {of_all}"


def _key(own: bytes, rest: bytes) -> str:
    return digest(own)[:INPUT] + digest(rest)[: 24 - INPUT]


def _keys(part: Mapping[str, Any] | Iterable[tuple[Any, Any]]) -> list[str]:
    """Keys of what ``row_parts`` gives: a row's ``(input, learned)`` each, or what generates rows without end."""
    if isinstance(part, Mapping):
        return [STREAM + digest(_plain(part))[:23]]
    return [_key(_plain(own), _plain(rest)) for own, rest in part]


def _whole(data: L.LightningDataModule) -> L.LightningDataModule:
    """The same data outside a trainer: all rows, and no cache of what a model does with them."""
    data.setup("fit")
    alone = copy.copy(data)
    alone.trainer = None
    return alone


def _rows(columns: Sequence[Any]) -> list[bytes]:
    """Each row's content over some columns, tensors ``[B, ...]`` of whole numbers or lists of B plain values."""
    each = []
    for column in columns:
        if isinstance(column, Tensor) and column.is_floating_point():
            raise ValueError("fractions have other last bits on another machine: tell rows by what they are made of")
        each.append(
            [f"{row.dtype} {list(row.shape)} ".encode() + row.contiguous().numpy().tobytes() for row in column.cpu()]
            if isinstance(column, Tensor)
            else [json.dumps(value).encode() for value in column]
        )
    return [b"\n".join(parts) for parts in zip(*each, strict=True)]


def _plain(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
