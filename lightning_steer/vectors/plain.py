"""The plain form ``{block: vector}``: a tensor for each layer, as in steering-vectors, repeng and notebooks.

Written as safetensors with keys ``0``, ``1``, ...; read from safetensors, or from a dictionary saved with torch.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as as_bytes
from torch import Tensor

from lightning_steer import checkpoint
from lightning_steer.errors import UserError, brief

NAME = re.compile(r"(?:(?:layers?|direction|block|h)[._-])?(\d{1,6})")


def encode(vectors: Mapping[int, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Return the file's content, ``{block counted from 0: [d]}``, with ``metadata`` that other tools ignore."""
    tensors = {str(layer): vector.detach().cpu().float().contiguous() for layer, vector in vectors.items()}
    return as_bytes(tensors, metadata)


def decode(loaded: Mapping[Any, Any]) -> dict[tuple[int, str], Tensor]:
    """Return ``{(block, "block"): [d]}`` of a dictionary whose keys are layer numbers, or names that end in one."""
    vectors: dict[tuple[int, str], Tensor] = {}
    for name, value in loaded.items():
        layer = NAME.fullmatch(str(name))
        if not layer or not isinstance(value, Tensor):
            raise UserError(f"{str(name)[:40]!r} is not the number of a layer with a tensor")
        place = int(layer[1]), "block"
        if place in vectors:
            raise UserError(f"layer {place[0]} is there twice")
        vectors[place] = value
    return vectors


def read_safetensors(content: bytes) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file; raise ValueError if it is unreadable."""
    try:
        return from_bytes(content)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        raise UserError(f"it is no readable safetensors file ({brief(error)})") from error


def read_torch(path: Path) -> dict[Any, Any]:
    """Return the dictionary in a file of ``torch.save``, without running code in it; raise ValueError otherwise."""
    content = checkpoint.load(path)
    if not isinstance(content, dict):
        raise UserError(f"it holds a {type(content).__name__}, not a dictionary of layers")
    return content
