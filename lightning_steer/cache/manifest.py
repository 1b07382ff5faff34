"""The manifest of a cache: its origin, and its shards with their sha256."""

import json
import re
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightning_steer.cache.files import digest, write
from lightning_steer.cache.origin import FORMAT, Origin
from lightning_steer.errors import UserError
from lightning_steer.files import is_regular, read_bytes

NAME = "manifest.json"
SHARD = re.compile(r"[0-9a-f]{12}-\d{5,}-[0-9a-f]{12}\.safetensors")
"""Names of shards: the key of the origin, the shard's number, and the beginning of its sha256, which shows that a
shard is intact before there is a manifest."""


class Entry(NamedTuple):
    """A shard."""

    file: str
    sha256: str
    rows: int


class Manifest(NamedTuple):
    """Content of ``manifest.json``."""

    origin: Origin
    model: str
    """The model's name; the same weights under another name match too."""
    sites: list[str]
    """Module names, one for each layer."""
    width: int
    shards: list[Entry]

    def write(self, folder: Path) -> None:
        """Replace the folder's manifest atomically; raise OSError."""
        shards = [entry._asdict() for entry in self.shards]
        value = {**self._asdict(), "origin": self.origin._asdict(), "shards": shards}
        write(folder / NAME, (json.dumps({**value, "sha256": _sha256_of(value)}, indent=1) + "\n").encode())

    @staticmethod
    def read(folder: Path) -> "Manifest":
        """Read the folder's manifest; raise FileNotFoundError or ValueError."""
        path = folder / NAME
        if not is_regular(path):
            raise FileNotFoundError(f"there is no cache in {folder}")
        try:
            value = json.loads(read_bytes(path))
            if value.pop("sha256") != _sha256_of(value):
                raise UserError("its own sha256 is another")
            if value["origin"]["format"] != FORMAT:
                raise UserError(f"its format is {value['origin']['format']}, and {FORMAT} is read")
            entries = [Entry(**entry) for entry in value.pop("shards")]
            manifest = Manifest(origin=Origin(**value.pop("origin")), shards=entries, **value)
            _check(manifest)
            return manifest
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            message = str(error)[:200]
            raise UserError(f"{path} is truncated, damaged or of another version ({message})") from error


def read_shard(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Return a shard's tensors, memory-mapped; raise ValueError.

    Returns:
        ``h [layers, rows, d]`` as stored, ``scale [layers]`` that h is multiplied by, ``count [texts]`` rows of each.
    """
    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor("h"), file.get_tensor("scale"), file.get_tensor("count")
    except SafetensorError as error:
        raise UserError(f"{path} is not a shard of a cache ({error})") from error


def _sha256_of(value: dict[str, object]) -> str:
    return digest(json.dumps(value, sort_keys=True).encode())


def _check(manifest: Manifest) -> None:
    """Raise ValueError if an entry has a type that readers do not expect."""
    origin, shards = manifest.origin, manifest.shards
    counts = [manifest.width, origin.count, origin.texts_per_shard, *origin.layers, *(entry.rows for entry in shards)]
    texts = [manifest.model, origin.dtype, *manifest.sites, *(text for e in shards for text in (e.file, e.sha256))]
    lists = all(isinstance(value, list) and value for value in (origin.layers, manifest.sites, shards))
    if not lists or any(type(count) is not int or not 0 <= count < 1 << 40 for count in counts):
        raise UserError("its layers, sites or shards are no lists, or its counts no numbers")
    repeated = len(set(origin.layers)) < len(origin.layers)
    if repeated or any(not isinstance(text, str) or len(text) > 512 for text in texts):
        raise UserError("a name in it is no text or too long, or a layer is there twice")
