"""Tell which methods just add a vector, and which one: other tools support only ``h' = h + v``."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lightning_steer.errors import UserError
from lightning_steer.strength import check_readable
from lightning_steer.vectors.card import Card, Site, Strength
from lightning_steer.vectors.file import SteeringVector, state
from lightning_steer.vectors.imported import ImportedVector


def constant(method: nn.Module, strength: float) -> Tensor:
    """Return the vector ``[d]`` that a method adds at this strength; raise ValueError if it depends on the activation.

    A method is a vector if it has learned only a vector, and moves random activations of many sizes by exactly it.
    """
    kind = type(method).__name__
    tensors = state(method)
    vector = tensors.get("vector")
    if set(tensors) != {"vector"} or vector is None or vector.dim() != 1:
        raise UserError(
            f"{kind} is not a vector: what it adds depends on the activation (or it adds nothing), so no other tool "
            "can use it; keep the vector file"
        )
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(64, len(vector), generator=generator) * torch.logspace(-3, 3, 64).unsqueeze(1)
    cpu_map = copy.deepcopy(method).cpu()  # the method itself may be in use on a GPU
    moved = cpu_map.shift(h, strength).detach().expand_as(h)  # type: ignore[operator]
    expected = strength * vector.detach().cpu().float()
    check_readable(kind, strength, torch.zeros_like(expected), expected)
    if not torch.allclose(moved, expected.expand_as(h), rtol=1e-6, atol=0):
        raise UserError(f"{kind} has learned a vector but does not simply add it: no other tool can use it")
    return expected


def by_layer(vector: SteeringVector, strength: float | None = None) -> dict[int, Tensor]:
    """Return ``{block counted from 0: [d]}``, multiplied by the strength: the plain form that other libraries read.

    Raises ValueError if a method is not a vector, or does not act on the residual stream of a decoder.
    """
    amount = vector.card.strength.value if strength is None else strength
    for site in vector.card.sites:
        if site.layer is None or site.part != "block":
            raise UserError(
                f"the vector acts on the {site.part} of {site.module or site.layer}: the plain form holds vectors of a "
                "decoder's residual stream"
            )
    pairs = zip(vector.card.sites, vector.maps, strict=True)
    return {site.layer: constant(method, amount) for site, method in pairs if site.layer is not None}


def as_vector(value: Tensor, name: object) -> Tensor:
    """Return an external tensor as ``[d]`` float32; raise ValueError if it is not a vector of finite numbers."""
    is_plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    if not is_plain or value.dim() != 1 or not 0 < len(value) <= WIDEST or not value.dtype.is_floating_point:
        raise UserError(
            f"{str(name)[:40]!r} is no vector of at most {WIDEST} fractions, but {value.dtype} of shape "
            f"{list(value.shape)}"
        )
    value = value.detach().float()
    if not value.isfinite().all():
        raise UserError(f"{str(name)[:40]!r} holds NaN or infinite values")
    return value.clone().contiguous()


WIDEST = 1 << 20
"""Largest accepted width: a file can claim any length for a vector that it does not contain."""


def imported(tensors: dict[tuple[int, str], Tensor], source: str, card: Card | None = None) -> SteeringVector:
    """Make a vector with a card from ``{(block, part): [d]}``; raise ValueError if it is empty.

    ``card`` is the file's own card, if it has one.
    """
    if not tensors:
        raise UserError("it holds no vector")
    maps, sites = list[nn.Module](), list[Site]()
    width = min(tensors.items())[1].numel()
    for (layer, part), value in sorted(tensors.items()):
        value = as_vector(value, f"layer {layer}")
        if len(value) != width:
            raise UserError(f"layer {layer} has {len(value)} values, and the first one has {width}")
        method = ImportedVector(width)
        method.vector = value
        maps.append(method)
        sites.append(Site(layer, part, "", width))
    strength = Strength(1.0, "multiples of the vector as it came")
    names = ("model", "task", "licence", "positions", "data", "selection")
    info: dict[str, Any] = (
        {"positions": {"name": "AllTokens"}} if card is None else {name: getattr(card, name) for name in names}
    )
    return SteeringVector(
        maps, Card(method=ImportedVector.__name__, settings={}, sites=sites, strength=strength, source=source, **info)
    )
