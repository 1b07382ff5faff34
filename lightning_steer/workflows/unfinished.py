"""What a search has measured so far, kept in a file, so that a search that was stopped goes on from there."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.files import read_bytes
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.report.files import write_text
from lightning_steer.runs.provenance import settings_of
from lightning_steer.vectors import fingerprint
from lightning_steer.vectors.steer import as_plain
from lightning_steer.versions import versions

Cells = tuple[Tensor, Tensor]
"""``[strengths]`` effect and damage, float64."""


class Unfinished:
    """Figures by what they are of; written after each measurement, since the next one may be long.

    Args:
        path: the file; None keeps nothing.
        settings: all that the figures depend on. Those of a file with other settings are not used.
    """

    def __init__(self, path: Path | None = None, settings: str = "") -> None:
        self.path, self.settings = path, settings
        self.known: dict[str, list[list[float]]] = {}
        self.recalled = 0
        """How many measurements were not done again."""
        if path is not None and path.exists():
            self.known = _read(path, settings)

    def known_or(self, place: str, measure: Callable[[], Cells]) -> Cells:
        """Return what is known of a place, else measure and keep it.

        A place says nothing of the method or the texts: the settings do, and they stand in the file. So without a file
        nothing is remembered, or a search whose method was exchanged would be given the figures of the first.
        """
        if self.path is None:
            return measure()
        if place in self.known:
            self.recalled += 1
            effect, damage = (torch.tensor(column, dtype=torch.float64) for column in self.known[place])
            return effect, damage
        effect, damage = measure()
        self.known[place] = [effect.tolist(), damage.tolist()]
        write_text(self.path, json.dumps({"settings": self.settings, "cells": self.known}) + "\n")
        return effect, damage


def _read(path: Path, settings: str) -> dict[str, list[list[float]]]:
    try:
        stored = json.loads(read_bytes(path))
        if stored["settings"] != settings:
            return {}
        return {str(place): [[float(x) for x in column] for column in pair] for place, pair in stored["cells"].items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}  # damaged: measured again


def search_settings(
    methods: Sequence[Callable[[int], SteeringMethod]], model: LLM, data: Sequence[Any]
) -> Iterator[str]:
    """Yield, for each method, a hash of all that the figures of a search depend on, but for what names a figure.

    Args:
        methods: each makes an unfitted method from a width.
        model: the model, loaded, with the layers that may be tried.
        data: pairs, texts and how they are split, in a form whose ``repr`` tells all of it.
    """
    for method in methods:
        unfitted = method(model.width(model.sites[0]))
        about = [versions(), type(unfitted).__name__, settings_of(unfitted), fingerprint.of_backbone(model, False)]
        about += [model.part, model.chat, model.system, as_plain(model.positions), *data]
        yield hashlib.sha256(repr(about).encode("utf-8", "surrogatepass")).hexdigest()
