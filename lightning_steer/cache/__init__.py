"""Activations on disk, recorded once and read memory-mapped.

A cache is a folder: ``manifest.json`` says what was recorded, from what, and lists the shards: safetensors files of a
fixed number of texts each. Nothing in it depends on how many processes recorded it, or on what interrupted them.
"""

from lightning_steer.cache.build import Build, ensure
from lightning_steer.cache.files import locked
from lightning_steer.cache.read import Cache

__all__ = ["Build", "Cache", "ensure", "locked"]
