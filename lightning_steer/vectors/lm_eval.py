"""The ``steered`` model of lm-evaluation-harness: ``--model steered --model_args pretrained=NAME,steer_path=FILE.pt``.

A dictionary ``{module below the base model: {"action": "add", "steering_vector", "steering_coefficient", ...}}`` in
torch's file format. The harness adds it at every token, and loads the file with pickle: use only files you trust.
"""

import io
import re
from typing import Any

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.lm.sites import PARTS
from lightning_steer.vectors.card import finite
from lightning_steer.vectors.constant import as_vector, constant
from lightning_steer.vectors.file import SteeringVector


def encode(vector: SteeringVector, strength: float) -> bytes:
    """Return the file's content; raise ValueError if a method is not a vector, or its module is unknown."""
    entries: dict[str, Any] = {}
    for site, method in zip(vector.card.sites, vector.maps, strict=True):
        if site.part == "heads":
            raise UserError("lm-evaluation-harness steers the outputs of modules, and heads are steered at an input")
        module = site.module.partition(".")[2]  # the base model is a direct child of a causal language model
        if site.layer is None or not module:
            raise UserError(
                f"lm-evaluation-harness steers submodules of a language model by name, and that of block {site.layer} "
                "is not known: name the model with --llm"
            )
        entries[module] = {
            "action": "add",
            "steering_vector": constant(method, 1.0),
            "steering_coefficient": float(strength),
            "bias": None,
            "head_index": None,
        }
    content = io.BytesIO()
    torch.save(entries, content)
    return content.getvalue()


def decode(loaded: Any) -> dict[tuple[int, str], Tensor]:
    """Return ``{(block, part): [d]}`` of a loaded dictionary, times the coefficients; raise ValueError if malformed."""
    vectors: dict[tuple[int, str], Tensor] = {}
    for name, entry in loaded.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("steering_vector"), Tensor):
            raise UserError(f"{str(name)[:40]!r} has no steering_vector")
        coefficient = entry.get("steering_coefficient", 1.0)
        coefficient = finite(coefficient, f"the steering_coefficient of {str(name)[:40]!r}")
        if entry.get("action", "add") != "add" or entry.get("head_index") is not None or entry.get("bias") is not None:
            raise UserError(
                f"{str(name)[:40]!r} is steered by {str(entry.get('action'))[:20]!r}, or a head or bias of its own: "
                "only plain added vectors are read"
            )
        place = _place_of(str(name))
        if place in vectors:
            raise UserError(f"block {place[0]} is steered twice")
        vectors[place] = as_vector(entry["steering_vector"], name) * coefficient
    return vectors


def _place_of(name: str) -> tuple[int, str]:
    """Parse block and part from a module's name."""
    match = re.fullmatch(r"(?:[A-Za-z_]\w*\.)*(\d{1,6})(?:\.(\w+))?", name)
    part = None if not match else "block" if not match[2] else next((p for p in PARTS if match[2] in PARTS[p]), None)
    if not match or part is None:
        raise UserError(f"{name[:60]!r} names no decoder block, nor its attention or MLP")
    return int(match[1]), part
