"""Read a cache: one layer over all rows, or any rows across layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.cache.files import digest
from lightning_steer.cache.manifest import SHARD, Manifest, read_shard
from lightning_steer.errors import UserError
from lightning_steer.files import is_regular

RECORD = "record it with `python -m lightning_steer predict --config configs/cache.yaml`, or with cache.ensure; "
RECORD += "what is whole is kept"


class Cache:
    """Recorded activations, memory-mapped and returned as float32.

    A row is a text or, in a cache of tokens, a token; rows are in the order of the texts. A shard's sha256 is
    checked when it is first read.

    Args:
        folder: the cache's folder.
        verified: whether the shards were just checked, and need no other check.
    """

    def __init__(self, folder: str | Path, verified: bool = False) -> None:
        self.folder, self.verified = Path(folder), verified
        try:
            self.manifest = Manifest.read(self.folder)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{error}: {RECORD}") from error
        self.layers, self.width = self.manifest.origin.layers, self.manifest.width
        self._end = torch.tensor([entry.rows for entry in self.manifest.shards]).cumsum(0)
        self._mapped: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return int(self._end[-1])

    def __reduce__(self) -> tuple[Any, ...]:  # another process maps the files itself
        return type(self), (self.folder, self.verified)

    def layer(self, layer: int) -> Tensor:
        """Return one layer, ``[rows, d]`` float32; raise ValueError if it was not recorded."""
        (layer_index,), start = self._layer_indices([layer]), 0
        self.verify()  # before allocating what the manifest claims
        values = torch.empty(len(self), self.width)
        for number, entry in enumerate(self.manifest.shards):
            h, scale, _ = self._shard(number)
            values[start : start + entry.rows].copy_(h[layer_index]).mul_(scale[layer_index])
            start += entry.rows
        return values

    def rows(self, index: Sequence[int] | Tensor, layers: Sequence[int] | None = None) -> Tensor:
        """Return some rows in any order, ``[layers, B, d]`` float32, of all layers or of the given ones."""
        index, layer_index = torch.as_tensor(index, dtype=torch.int64), torch.tensor(self._layer_indices(layers))
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(self):
            raise IndexError(
                f"the cache {self.folder} has rows 0 to {len(self) - 1}, not {int(index.min())} to {int(index.max())}"
            )
        values = torch.empty(len(layer_index), len(index), self.width)
        shard = torch.searchsorted(self._end, index, right=True)
        for number in shard.unique().tolist():
            h, scale, _ = self._shard(number)
            places = (shard == number).nonzero().squeeze(1)
            shard_rows = index[places] - (self._end[number] - self.manifest.shards[number].rows)
            values[:, places] = h[layer_index.unsqueeze(1), shard_rows] * scale[layer_index].view(-1, 1, 1)
        return values

    def texts(self) -> Tensor:
        """Return each row's text, ``[rows]`` int64, counted from 0."""
        count = torch.cat([self._shard(number)[2] for number in range(len(self.manifest.shards))])
        return torch.arange(len(count)).repeat_interleave(count)

    def verify(self) -> None:
        """Check every shard's sha256 now; raise ValueError or FileNotFoundError naming the first wrong one."""
        for number in range(len(self.manifest.shards)):
            self._shard(number)

    def _layer_indices(self, layers: Sequence[int] | None) -> list[int]:
        layers = self.layers if layers is None else layers
        for layer in layers:
            if layer not in self.layers:
                recorded = ", ".join(map(str, self.layers))
                raise UserError(f"layer {layer} is not in the cache {self.folder}, which holds {recorded}")
        return [self.layers.index(layer) for layer in layers]

    def _shard(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        if number not in self._mapped:
            entry = self.manifest.shards[number]
            path = self.folder / entry.file
            if not SHARD.fullmatch(entry.file) or not is_regular(path):
                raise FileNotFoundError(
                    f"shard {number} of the cache {self.folder} is missing ({entry.file}): {RECORD}"
                )
            if not self.verified and digest(path) != entry.sha256:
                raise UserError(f"shard {number} of the cache {self.folder} is damaged ({entry.file}): {RECORD}")
            mapped = read_shard(path)
            if mapped[0].shape != (len(self.layers), entry.rows, self.width):
                raise UserError(
                    f"shard {number} of the cache {self.folder} holds {list(mapped[0].shape)}, not what its manifest "
                    f"says: {RECORD}"
                )
            self._mapped[number] = mapped
        return self._mapped[number]
