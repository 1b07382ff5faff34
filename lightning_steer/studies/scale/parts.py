"""The parts of the study: what is measured at each size, each with the settings that its numbers depend on."""

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lightning_steer.statistics import estimate
from lightning_steer.studies.arena.tasks import LANGUAGE as ARENA_TASKS
from lightning_steer.studies.mera.crossed import cell
from lightning_steer.studies.mera.settings import TASKS
from lightning_steer.studies.scale import declared, measuring
from lightning_steer.studies.scale.declared import BALANCED, LAYERS, PULL, SMALL
from lightning_steer.studies.scale.training import MODELS, folder_of

MERA_UNITS = tuple(itertools.product(("base", "tuned"), TASKS))
"""Pairs of a model and a task."""


def mera_name(size: str, model: str, task: str, mixture: str, draw: int) -> str:
    """Return the name of a cell of MERA's design."""
    return f"mera-{size}-{model}-{task}-{mixture.replace(' %', '').replace(' ', '_')}-{draw}"


def arena_name(size: str, task: str, seed: int) -> str:
    """Return the name of a cell of the arena."""
    return f"arena-{size}-{task}-{seed}"


class Part(NamedTuple):
    """What is measured together."""

    used: tuple[str, ...]
    """Models of its size that it needs."""
    settings: dict[str, Any]
    """What its numbers depend on, beside the models' weights."""
    make: Callable[[], dict[str, Any]]


def parts(size: str, models: Path, quick: bool) -> dict[str, Part]:
    """Return all parts of a size by name.

    Args:
        size: ``SMALL`` or ``LARGE``.
        models: folder with the folders of the models of this size.
        quick: a few rows, to see that everything runs.
    """
    folders, amount = {model: folder_of(models, model) for model in MODELS}, measuring.Amount(quick)
    common = {"declaration": declared.DECLARATION.digest(), "statistics": estimate.VERSION, "quick": quick}
    by_name: dict[str, Part] = {}

    def add(name: str, used: tuple[str, ...], make: Callable[[], dict[str, Any]], **settings: Any) -> None:
        by_name[name] = Part(used, {**common, **settings}, make)

    for model in ("base", "tuned"):
        add(f"knowledge-{size}-{model}", (model,), partial(measuring.knowledge, folders[model], model, amount))
    add(f"fidelity-{size}", MODELS, partial(measuring.fidelity, folders, amount))
    mixtures = itertools.product(declared.MERA_DRAWS, MERA_UNITS, (PULL, BALANCED))
    for draw, (model, task), mixture in mixtures:
        make = partial(measuring.mera, models, model, task, mixture, draw, amount)
        add(mera_name(size, model, task, mixture, draw), (model,), make, design=cell.DESIGN)
    for seed in (declared.ARENA_SEED, declared.REFERENCE_SEED) if size == SMALL else (declared.ARENA_SEED,):
        for task in ARENA_TASKS:
            scale = amount.arena(LAYERS[size])
            make = partial(measuring.arena, folders["base"], task, seed, scale)
            add(arena_name(size, task, seed), ("base",), make, scale=scale._asdict())
    return by_name


def settings(part: Part, models: Path) -> dict[str, Any]:
    """Return all that a part's numbers depend on, with fingerprints of the weights, as JSON gives it back."""
    files = {model: folder_of(models, model) / "model.safetensors" for model in part.used}
    weights = {model: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for model, path in files.items()}
    return json.loads(json.dumps({**part.settings, "weights": weights}))


def stored(path: Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a part's numbers if they were measured with these settings."""
    found = json.loads(path.read_text()) if path.is_file() else {}
    return found["numbers"] if found.get("settings") == wanted else None
