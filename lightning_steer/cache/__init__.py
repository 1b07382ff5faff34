"""Activations on disk, recorded once and read memory-mapped.

A cache is a folder: ``manifest.json`` states what was recorded from what, and lists the shards: safetensors files of a
fixed number of texts each. Its content depends neither on the number of processes nor on interruptions.
"""

from lightning_steer.cache.build import Build, ensure
from lightning_steer.cache.files import locked
from lightning_steer.cache.read import Cache

__all__ = ["Build", "Cache", "ensure", "locked"]
