"""A disk that is full, for the one file whose name is given."""

import os
from pathlib import Path

import pytest


def full(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let every write to the file that will be renamed to ``name`` fail, as the system's own full device does."""
    opening = os.open

    def open_(path: str | Path, flags: int, mode: int = 0o777, **more: int) -> int:
        aside = Path(path).name.startswith(f".{name}.")
        return opening("/dev/full", os.O_WRONLY) if aside else opening(path, flags, mode, **more)

    patch.setattr(os, "open", open_)
