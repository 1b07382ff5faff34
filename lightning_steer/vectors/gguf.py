"""GGUF control vectors, read by llama.cpp (``--control-vector``) and written by repeng.

``direction.K`` is a float32 vector that is added to the output of block K, counted from 0, at every token; llama.cpp
rejects K = 0. Three typed keys say so in files of this project (:data:`MEANING`); other tools write none of them, and
mean the same. The layout is version 3 of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, little-endian.
"""

import re
import struct
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_steer.errors import UserError

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""struct's letter for each type of metadata value; in addition, 8 is a string and 9 an array."""
UINT32, STRING, ARRAY = 4, 8, 9
MEANING: dict[str, str | int] = {
    "controlvector.operation": "add",
    "controlvector.site": "block_output",
    "controlvector.layer_base": 0,
}
"""What a direction does, where, and the number of the first block; a file that says something else is refused."""
BLOCK_0 = (
    "direction.0 is read as added to the output of block 0, as EasySteer writes and applies it; llama.cpp refuses a "
    "file with direction.0, and nothing in the file says whether another tool counted its blocks from 1"
)
"""A sentence on files of other tools that steer block 0."""
DTYPES = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}


def encode(vectors: Mapping[int, Tensor], family: str, more: Mapping[str, str]) -> bytes:
    """Return the content of a control-vector file.

    Args:
        vectors: ``{block counted from 0: [d]}``.
        family: the model's ``model_type``, a hint that llama.cpp does not check.
        more: further metadata.

    Raises:
        ValueError: a vector acts on block 0, which llama.cpp cannot steer.
    """
    if 0 in vectors:
        raise UserError(
            "llama.cpp cannot steer block 0: it refuses a file with direction.0, having no vector for its first layer; "
            "steer a later block, or bake the vector into the weights (--bake)"
        )
    entries: dict[str, str | int] = {
        "general.architecture": "controlvector",
        "controlvector.model_hint": family,
        **more,
        "controlvector.layer_count": len(vectors),
        **MEANING,
    }
    head = b"".join(_entry(key, value) for key, value in entries.items())
    infos, data = b"", b""
    for layer, vector in sorted(vectors.items()):
        infos += _text(f"direction.{layer}") + struct.pack("<IQIQ", 1, len(vector), 0, len(data))
        data += vector.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes()
        data += bytes(-len(data) % ALIGNMENT)
    head = MAGIC + struct.pack("<IQQ", VERSION, len(vectors), len(entries)) + head + infos
    return head + bytes(-len(head) % ALIGNMENT) + data


def decode(content: bytes) -> tuple[dict[int, Tensor], dict[str, Any]]:
    """Return ``{block: [d]}`` and the metadata without arrays; raise ValueError for any other file."""
    reader = _Reader(content)
    if reader.take(4) != MAGIC:
        raise UserError("it does not begin with GGUF")
    version, tensors, entries = reader.numbers("<IQQ")
    if version not in (2, VERSION):
        raise UserError(f"it is of GGUF version {version} or big-endian; 2 and 3, little-endian, are read")
    if max(tensors, entries) > len(content):  # each needs at least a byte
        raise UserError(f"it claims {tensors} tensors and {entries} entries in {len(content)} bytes")
    metadata = {}
    for _ in range(entries):
        key = reader.text()
        metadata[key] = reader.value(*reader.numbers("<I"))
    if metadata.get("general.architecture") != "controlvector":
        raise UserError(f"it holds {str(metadata.get('general.architecture'))[:40]!r}, not a controlvector")
    for key, expected in MEANING.items():
        value = metadata.get(key, expected)
        if type(value) is not type(expected) or value != expected:
            raise UserError(
                f"its {key} is {str(value)[:40]!r}, where only {expected!r} is read: it steers otherwise than by "
                "adding direction.K to the output of block K, counted from 0"
            )
    infos = [_info(reader) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 16:
        raise UserError(f"its alignment is {alignment!r}")
    start = reader.at + -reader.at % alignment
    claimed = sum(length * DTYPES[kind].itemsize for _, length, kind, _ in infos)
    if claimed > len(content):  # tensors that share bytes would each be copied
        raise UserError(f"its tensors claim {claimed} bytes together, and it has {len(content)}")
    vectors = {}
    for layer, length, kind, offset in infos:
        if layer in vectors:
            raise UserError(f"it holds direction.{layer} twice")
        reader.at = start + offset
        dtype = DTYPES[kind]
        vectors[layer] = torch.frombuffer(bytearray(reader.take(length * dtype.itemsize)), dtype=dtype).float()
    return vectors, metadata


def _info(reader: "_Reader") -> tuple[int, int, int, int]:
    name, (dimensions,) = reader.text(), reader.numbers("<I")
    layer = re.fullmatch(r"direction\.(\d{1,6})", name)
    if not layer or dimensions != 1:
        raise UserError(f"tensor {name[:40]!r} of {dimensions} dimensions is not a direction.LAYER of one")
    length, kind, offset = reader.numbers("<QIQ")
    if kind not in DTYPES or not length:
        raise UserError(f"{name} has {length} values of type {kind}; float32, float16 and bfloat16 are read")
    return int(layer[1]), length, kind, offset


def _entry(key: str, value: str | int) -> bytes:
    if isinstance(value, str):
        return _text(key) + struct.pack("<I", STRING) + _text(value)
    return _text(key) + struct.pack("<II", UINT32, value)


def _text(value: str) -> bytes:
    content = value.encode()
    return struct.pack("<Q", len(content)) + content


class _Reader:
    """Reads bytes in sequence, and never more than there are."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.content) - self.at:
            raise UserError(f"it ends after {len(self.content)} bytes, where {count} more are due at {self.at}")
        self.at += count
        return self.content[self.at - count : self.at]

    def numbers(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def text(self) -> str:
        (length,) = self.numbers("<Q")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise UserError(f"a string in it is not UTF-8 ({error.reason})") from error

    def value(self, kind: int) -> Any:
        """Read a metadata value; an array is skipped."""
        if kind == STRING:
            return self.text()
        if kind in NUMBERS:
            return self.numbers(f"<{NUMBERS[kind]}")[0]
        if kind != ARRAY:
            raise UserError(f"a value in it is of type {kind}, which there is not")
        item_kind, count = self.numbers("<IQ")
        if item_kind in NUMBERS:
            self.take(count * struct.calcsize(NUMBERS[item_kind]))
        elif item_kind == STRING:
            for _ in range(count):  # stops at the end of the file
                self.text()
        else:
            raise UserError(f"an array in it is of type {item_kind}; numbers and strings are read")
        return None
