"""The project's own vector files: safetensors with a card, for any method, bit for bit.

Tensors are called ``NUMBER OF THE SITE.NAME``; the card is JSON in the file's metadata under ``lightning_steer``.
"""

import inspect
import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import Tensor, nn

from lightning_steer import methods
from lightning_steer.errors import UserError, brief
from lightning_steer.files import write
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.probes.calibrated_probe import renamed
from lightning_steer.runs.provenance import settings_of
from lightning_steer.vectors import card as cards
from lightning_steer.vectors.card import Card
from lightning_steer.vectors.imported import ImportedVector
from lightning_steer.vectors.summary import summary

KEY = "lightning_steer"


class SteeringVector(NamedTuple):
    """Fitted methods, one for each site in the order of the card, and the card."""

    maps: list[nn.Module]
    card: Card

    def applied_to(
        self, model: Any, strength: Tensor | float | None = None, **more: Any
    ) -> AbstractContextManager[None]:
        """Steer a model while a ``with`` block runs; see :func:`lightning_steer.vectors.edit` for the arguments."""
        from lightning_steer.vectors.steer import edit  # a circular import: it reads vectors, so it imports this file

        return edit(model, self, strength, **more)

    def save(self, path: str | Path) -> Path:
        """Write the vector and its card to a file that :func:`load` reads; raise ValueError or OSError."""
        return save(path, self)

    def __str__(self) -> str:
        """Summarise what was fitted, its effect and its side effects, with intervals."""
        return summary(self.card)


def save(path: str | Path, vector: SteeringVector) -> Path:
    """Write a vector file atomically; raise ValueError or OSError."""
    tensors = {}
    for i, (method, site) in enumerate(zip(vector.maps, vector.card.sites, strict=True)):
        if isinstance(method, SteeringMethod) and not method.fitted:
            raise UserError(f"the map of {site.module or site} is not fitted: there is nothing to save")
        # cloned: one method may stand at several places, and safetensors writes no shared memory
        tensors |= {f"{i}.{name}": value.detach().cpu().contiguous().clone() for name, value in state(method).items()}
    try:
        text = json.dumps(vector.card.as_plain(), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"the card holds a value that JSON does not know ({error})") from error
    read_card(text)
    path = Path(path)
    write(path, as_bytes(tensors, {KEY: text}))  # one entry: safetensors writes several in any order
    return path


def load(path: str | Path) -> SteeringVector:
    """Read a vector file; nothing in it is run. Raises FileNotFoundError, or ValueError in a sentence."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no vector file {path}")
    try:
        with safe_open(path, "pt") as file:
            metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({brief(error)})") from error
    if KEY not in metadata:
        raise UserError(
            f"{path} has no card, so it is no vector file of this project: import it with `python -m lightning_steer "
            f"export {path} NEW.safetensors`"
        )
    try:
        card = read_card(metadata[KEY])
        return SteeringVector(_maps(card, tensors), card)
    except ValueError as error:
        raise UserError(f"{path} is a damaged vector file, or of another version: {brief(error)}") from error


def read_card(text: str) -> Card:
    """Parse a card from JSON; raise ValueError if it is malformed."""
    try:
        return cards.read(json.loads(text))
    except RecursionError as error:
        raise UserError("the card is nested too deeply") from error


def state(method: nn.Module) -> dict[str, Tensor]:
    """Return a method's tensors, without its fitted flag: methods in files are fitted."""
    return {name: value for name, value in method.state_dict().items() if not name.endswith("_extra_state")}


def settings(method: nn.Module) -> dict[str, Any]:
    """Return the arguments of a method except its width; an imported vector has none."""
    return settings_of(method) if isinstance(method, SteeringMethod) else {}


def units(method: nn.Module) -> str:
    """Return the unit of strength, taken from the method's docstring."""
    docstring = " ".join((inspect.getdoc(type(method)) or "").split())
    match = re.search(r"Strength: (.+?)(?:\. |\.$|$)", docstring)
    return match[1] if match else "none"


def _maps(card: Card, tensors: Mapping[str, Tensor]) -> list[nn.Module]:
    kind = _kind(card.method)
    unused, maps = dict(tensors), []
    for i, site in enumerate(card.sites):
        site_tensors = {name.removeprefix(f"{i}."): unused.pop(name) for name in tensors if name.startswith(f"{i}.")}
        maps.append(_map(kind, card.settings, site.width, site_tensors))
    if unused:
        raise UserError(f"tensor {sorted(unused)[0][:60]!r} belongs to no site")
    return maps


def _kind(name: object) -> Any:
    kinds = {name: getattr(methods, name) for name in methods.__all__ if name != SteeringMethod.__name__}
    kinds[ImportedVector.__name__] = ImportedVector
    if not isinstance(name, str) or name not in kinds:
        raise UserError(f"the method {str(name)[:60]!r} is not known; known are {', '.join(sorted(kinds))}")
    return kinds[name]


DEEPEST = 8
"""Methods inside one another, at most: a file can claim any depth."""


def _made(value: Any, depth: int = 0) -> Any:
    """Return an argument of a method as its constructor takes it: methods inside it are described by name."""
    if depth > DEEPEST:
        raise UserError(f"methods are nested more than {DEEPEST} deep")
    if isinstance(value, list):
        return [_made(part, depth + 1) for part in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != {"name", "settings"} or not isinstance(value["settings"], dict):
        raise UserError(f"a method inside another one has a name and settings, not {str(value)[:60]}")
    return partial(_kind(value["name"]), **{key: _made(entry, depth + 1) for key, entry in value["settings"].items()})


def _map(kind: Any, arguments: Mapping[str, Any], width: int, tensors: Mapping[str, Tensor]) -> nn.Module:
    try:
        with torch.device("meta"):  # nothing is allocated for the sizes that a file claims
            method = kind(width, **{name: _made(value) for name, value in arguments.items()})
        expected = {name: value.shape for name, value in state(method).items()}
    except Exception as error:  # methods raise various types for impossible settings
        raise UserError(f"{kind.__name__} cannot be made with {str(arguments)[:80]} ({brief(error)})") from error
    tensors = renamed(tensors)
    if expected != {name: value.shape for name, value in tensors.items()}:
        raise UserError(f"the tensors of a site are not those of {kind.__name__} of width {width}")
    for name, value in tensors.items():
        if value.dtype != torch.float32 or not value.isfinite().all():
            raise UserError(f"tensor {name!r} is not of finite float32 numbers")
    method.load_state_dict(tensors, strict=False, assign=True)
    for part in method.modules():
        if isinstance(part, SteeringMethod):
            part.fitted = True
    return method.requires_grad_(False).eval()
