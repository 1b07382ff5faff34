"""Read what ``torch.save`` has written: tensors and plain values only, in memory bounded by the file's size.

``weights_only`` keeps code out, but not claims: a tensor of stride 0 may call itself terabytes long, one storage may be
used a thousand times, and constructors such as ``torch.Tensor(10**12)`` are on torch's own list. So the file is mapped,
its instructions are listed without being run, and what is claimed is compared with what is there.
"""

import io
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.errors import UserError, brief

NAMES = re.compile(
    r"collections (OrderedDict|defaultdict)|torch\._utils _rebuild_(tensor_v2|parameter)|torch (Size|device)"
    r"|torch (?!Untyped|Typed)\w+Storage|torch (u?int|float|bfloat|complex)\d+|torch bool|_codecs encode"
)
"""What a file may name: rebuilders of tensors from stored bytes, and nothing that makes its own."""
DAMAGED = (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, UnicodeDecodeError)
DAMAGED += (struct.error, IndexError)
TIED = 2
"""Copies of one storage that a file may ask for, as tied embeddings do."""


def load(path: Path) -> Any:
    """Return the content of a file.

    Raises:
        ValueError: it is not such a file, names something else, or claims more than it holds.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    _check_instructions(path, size)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever torch, zipfile or the unpickler say of a damaged or foreign file
        raise UserError(f"it cannot be read as tensors and plain values ({brief(error)})") from error
    tensors = list(_tensors(content))
    storages = {_place(tensor): tensor.untyped_storage() for tensor in tensors}
    claimed = sum(tensor.numel() * tensor.itemsize for tensor in tensors)
    if claimed > TIED * size or sum(storage.nbytes() for storage in storages.values()) > size:
        raise UserError(f"its tensors claim {claimed} bytes, and it has {size}")
    copies = {place: storage.clone() for place, storage in storages.items()}  # the file may be replaced or cut off
    with torch.no_grad():
        for tensor in tensors:
            storage = copies[_place(tensor)]
            if storage.nbytes():
                tensor.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())  # type: ignore[call-overload]
    return content


def _place(tensor: Tensor) -> tuple[int, int]:
    return tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()


def _check_instructions(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            if not stored or sum(entry.file_size for entry in entries) > size:
                raise UserError("it is compressed, or its parts claim more bytes than it has")
            for entry in entries:
                if entry.filename.endswith(".pkl"):
                    for instruction, value, _ in pickletools.genops(io.BytesIO(archive.read(entry))):
                        named = instruction.name in ("GLOBAL", "INST")
                        if instruction.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                            raise UserError(f"it has the instruction {instruction.name}, which torch does not write")
                        if named and not NAMES.fullmatch(str(value)):
                            raise UserError(f"it names {str(value)[:60]!r}, which is no tensor and no plain value")
    except DAMAGED as error:
        raise UserError(f"it is no file of torch.save, or a damaged one ({str(error)[:100]})") from error


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield each tensor in nested containers once, however often a container stands in another."""
    todo, seen = [value], set[int]()
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, dict):
            todo += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set, frozenset)):
            todo += item
