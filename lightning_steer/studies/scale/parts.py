"""The parts of the study: what is measured at each size, each with the settings that its numbers depend on."""

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lightning_steer.statistics import estimate
from lightning_steer.studies.arena import language
from lightning_steer.studies.mera.crossed import cell
from lightning_steer.studies.scale import declared, measuring
from lightning_steer.studies.scale.declared import BALANCED, PULL, SMALL
from lightning_steer.studies.scale.design import Design, arena_name, mera_name
from lightning_steer.studies.scale.training import MODELS, folder_of


class MeasuredPart(NamedTuple):
    """What is measured together."""

    used: tuple[str, ...]
    """Models of its size that it needs."""
    settings: dict[str, Any]
    """What its numbers depend on, beside the models' weights."""
    make: Callable[[], dict[str, Any]]


def parts(size: str, models: Path, design: Design) -> dict[str, MeasuredPart]:
    """Return all parts of a size by name.

    Args:
        size: ``SMALL`` or ``LARGE``.
        models: folder with the folders of the models of this size.
        design: how much is measured.
    """
    folders, quick = {model: folder_of(models, model) for model in MODELS}, design.small
    common = {"declaration": declared.DECLARATION.digest(), "statistics": estimate.VERSION, "quick": quick}
    by_name: dict[str, MeasuredPart] = {}

    def add(name: str, used: tuple[str, ...], make: Callable[[], dict[str, Any]], **settings: Any) -> None:
        by_name[name] = MeasuredPart(used, {**common, **settings}, make)

    for model in ("base", "tuned"):
        add(f"knowledge-{size}-{model}", (model,), partial(measuring.knowledge, folders[model], model, design))
    add(f"fidelity-{size}", MODELS, partial(measuring.fidelity, folders, design))
    mixtures = itertools.product(design.mera_draws, design.mera_units, (PULL, BALANCED))
    for draw, (model, task), mixture in mixtures:
        make = partial(measuring.mera, models, model, task, mixture, draw, quick)
        add(mera_name(size, model, task, mixture, draw), (model,), make, design=cell.DESIGN)
    scale = design.scale(size)
    for seed in design.arena_seeds if size == SMALL else design.arena_seeds[:1]:
        for task in design.arena_tasks:
            make = partial(measuring.arena, folders["base"], task, seed, scale)
            add(arena_name(size, task, seed), ("base",), make, scale=scale._asdict(), search=language.VERSION)
    return by_name


def settings(part: MeasuredPart, models: Path) -> dict[str, Any]:
    """Return all that a part's numbers depend on, with fingerprints of the weights, as JSON gives it back."""
    files = {model: folder_of(models, model) / "model.safetensors" for model in part.used}
    weights = {model: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for model, path in files.items()}
    return json.loads(json.dumps({**part.settings, "weights": weights}))


def stored(path: Path, expected: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a part's numbers if they were measured with these settings."""
    content = json.loads(path.read_text()) if path.is_file() else {}
    return content["numbers"] if content.get("settings") == expected else None
