"""Keys of the rows of a data module: what they hold, hashed, so that two parts or two runs can be compared.

Text and whole numbers are hashed as they are. Numbers that were computed never are: their last bits depend on the
processor (``torch.randn`` gives others with AVX2 than without), so generated rows are told by what generates them.
"""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, cast

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from lightning_steer.cache.files import digest
from lightning_steer.data.base import SteeringDataModule
from lightning_steer.errors import UserError

INPUT = 16
"""Digits of a row's key that tell its input; the others tell what was learned from it."""
STREAM = "~"
"""Begins the key of rows generated without end, and the last one of rows of which an epoch reads a part."""


class Limits(NamedTuple):
    """How much of each part a trainer reads: a number of batches, or a share of them; 1.0 is all."""

    fit: int | float = 1.0
    select: int | float = 1.0
    held_out: int | float = 1.0

    @staticmethod
    def of(trainer: L.Trainer | None) -> "Limits":
        """Return those of a trainer; a dry run of a test says nothing of the fit."""
        if trainer is None:
            return Limits()
        held_out = trainer.limit_test_batches
        if cast(Any, trainer).fast_dev_run and trainer.state.fn != TrainerFn.FITTING:
            return Limits(held_out=held_out)
        return Limits(trainer.limit_train_batches, trainer.limit_val_batches, held_out)


LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
"""Of the parts, in the order of :class:`Limits`."""


def part_rows(data: SteeringDataModule, limits: Limits | None = None) -> tuple[list[str], list[str]]:
    """Keys of the rows that are fitted to and that are chosen on; the same in every process.

    Args:
        data: a data module, of a trainer or not.
        limits: how much of each part is read; None for what the data's trainer reads.
    """
    limits = limits or Limits.of(data.trainer)
    data = _whole(data)
    return _part(data, 0, limits.fit), _part(data, 1, limits.select)


def held_out_rows(data: SteeringDataModule) -> list[str]:
    """Keys of the held-out rows that are tested; none where the data have no rows that are held out."""
    return _part(_whole(data), 2, Limits.of(data.trainer).held_out)


def first_batches(loader: DataLoader[Any], limit: int | float) -> Iterator[Any]:
    """Yield the batches that a trainer reads under a limit."""
    return islice(loader, _counts(loader, limit)[0])


def left_out(data: SteeringDataModule) -> list[str]:
    """Return a sentence for a report on each part that a trainer's limits cut short; none as a rule."""
    sentences, whole = [], _whole(data)
    settings = ("limit_train_batches, overfit_batches", "limit_val_batches, overfit_batches", "limit_test_batches")
    verbs = ("{} training rows were fitted to", "{} selection rows were chosen on", "{} held-out rows were tested")
    for place, limit in enumerate(Limits.of(data.trainer)):
        batches_read, count = _counts(_loader(whole, place), limit)
        if batches_read < count:
            rows, total = len(_single_rows(_part(whole, place, limit))), len(_single_rows(_part(whole, place, 1.0)))
            shown = f"{rows:,} of the {total:,}" if rows < total else f"{batches_read:,} of {count:,} batches of the"
            sentences.append(f"Only {verbs[place].format(shown)} (trainer settings {settings[place]}).")
    return sentences


def row_keys(batches: Iterable[Any]) -> list[str]:
    """24 hexadecimal digits of each row: 16 of its input, 8 of what is learned from it; raises ValueError."""
    keys = []
    for batch in batches:
        content = getattr(batch, "content", None)  # of a class that somebody has added
        if content is None:
            raise UserError(
                f"rows of a {type(batch).__name__} cannot be told apart: give its class a `content`, or the data "
                "module `row_parts`, as docs/adding-a-dataset.md shows"
            )
        inputs, targets = content
        for input_bytes, target_bytes in zip(_rows(inputs), _rows(targets), strict=True):
            keys.append(_key(input_bytes, target_bytes))
    return keys


def phrase(keys: Sequence[str]) -> str:
    """How many rows these are, and the first digits of their sha256."""
    fingerprint, rows = digest(repr(list(keys)).encode())[:12], _single_rows(keys)
    if keys and not rows:
        return f"generated rows {fingerprint}"
    return f"{len(rows)} rows {fingerprint}" + (", of which an epoch reads a part," if len(rows) < len(keys) else "")


def _single_rows(keys: Sequence[str]) -> list[str]:
    """Return the keys of single rows, without those of streams."""
    return [key for key in keys if not key.startswith(STREAM)]


def _loader(data: SteeringDataModule, place: int) -> DataLoader[Any]:
    loaders = getattr(data, LOADERS[place])()
    return loaders[0] if isinstance(loaders, list) else loaders


def _counts(loader: DataLoader[Any], limit: int | float) -> tuple[int, int]:
    """How many batches of a loader are read, as Lightning has it, and how many there are."""
    count = len(loader)
    return min(count, limit) if isinstance(limit, int) else int(count * limit), count


def _part(data: SteeringDataModule, place: int, limit: int | float) -> list[str]:
    """Return keys of the rows of a part that are read."""
    described = data.row_parts()
    rows = () if described is None else described[place]
    if described is not None and ((limit == 1.0 and isinstance(limit, float)) or not rows):
        return _keys(rows)
    loader = _loader(data, place)
    read, count = _counts(loader, limit)
    if described is None:
        return row_keys(islice(loader, read))
    if read == count:
        return _keys(rows)
    if isinstance(rows, Mapping):
        return _keys({**rows, "batches": read})
    keys, batches = _keys(rows), list(islice(loader, read))
    if isinstance(loader.sampler, SequentialSampler) and all("row" in batch._fields for batch in batches):
        return [keys[row] for batch in batches for row in batch.row.tolist()]
    return [*keys, STREAM + digest(f"{read} of {count} batches".encode())[:23]]  # others in every epoch


def _key(input_bytes: bytes, target_bytes: bytes) -> str:
    return digest(input_bytes)[:INPUT] + digest(target_bytes)[: 24 - INPUT]


def _keys(part: Mapping[str, Any] | Iterable[tuple[Any, Any]]) -> list[str]:
    """Keys of what ``row_parts`` gives: a row's ``(input, learned)`` each, or what generates rows without end."""
    if isinstance(part, Mapping):
        return [STREAM + digest(_plain(part))[:23]]
    return [_key(_plain(input_), _plain(target)) for input_, target in part]


def _whole(data: SteeringDataModule) -> SteeringDataModule:
    """The same data outside a trainer: all rows, and no cache of what a model does with them."""
    data.setup("fit")
    detached = copy.copy(data)
    detached.trainer = None
    return detached


def _rows(columns: Sequence[Any]) -> list[bytes]:
    """Each row's content over some columns, tensors ``[B, ...]`` of whole numbers or lists of B plain values."""
    encoded = []
    for column in columns:
        if isinstance(column, Tensor) and column.is_floating_point():
            raise UserError("fractions have other last bits on another machine: tell rows by what they are made of")
        encoded.append(
            [f"{row.dtype} {list(row.shape)} ".encode() + row.contiguous().numpy().tobytes() for row in column.cpu()]
            if isinstance(column, Tensor)
            else [json.dumps(value).encode() for value in column]
        )
    return [b"\n".join(parts) for parts in zip(*encoded, strict=True)]


def _plain(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
