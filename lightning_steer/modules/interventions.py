"""Several interventions side by side: each steers some copies of the batch in one forward pass."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.hooks import Edit
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.methods.composed import Composed

SiteEdit = Callable[[str, Tensor], Tensor]
"""``(site, h [copies, B, ..., d]) -> h'``."""


class Interventions(NamedTuple):
    """``copies`` candidates under one name; the function edits all of them together."""

    name: str
    copies: int
    function: SiteEdit


def unsteered() -> Interventions:
    """Return the intervention that changes nothing."""
    return Interventions("baseline", 1, lambda _site, h: h)


def steered(name: str, maps: Mapping[str, SteeringMethod], strengths: Sequence[float]) -> Interventions:
    """Return the intervention of one fitted method for each site, at every strength."""

    def function(site: str, h: Tensor) -> Tensor:
        return maps[site](h, torch.tensor(strengths, dtype=torch.float32, device=h.device))

    return Interventions(name, len(strengths), function)


def parts(methods: Mapping[str, SteeringMethod], strength: float) -> list[Interventions]:
    """Return an intervention for each part of composed methods, ``part_1`` and so on; none for other methods."""
    composed = {site: method for site, method in methods.items() if isinstance(method, Composed)}
    count = min((len(method.parts) for method in composed.values()), default=1)
    if count < 2 or len(composed) < len(methods):
        return []

    def alone(number: int) -> SiteEdit:
        def function(site: str, h: Tensor) -> Tensor:
            return composed[site].parts[number](h, composed[site].part_strengths(strength)[number])

        return function

    return [Interventions(f"part_{number + 1}", 1, alone(number)) for number in range(count)]


def refitted(name: str, family: Sequence[Mapping[str, SteeringMethod]], strength: float) -> Interventions:
    """Return the intervention of differently fitted methods at one strength."""

    def function(site: str, h: Tensor) -> Tensor:
        return torch.stack([maps[site](copy, strength) for maps, copy in zip(family, h, strict=True)])

    return Interventions(name, len(family), function)


def replaced(name: str, by: Mapping[str, Tensor]) -> Interventions:
    """Return the intervention that replaces a site's output by values of the same shape, or by one row for all."""
    return Interventions(name, 1, lambda site, h: by[site].to(h.dtype).expand_as(h))


def shifted(name: str, by: Mapping[str, Tensor]) -> Interventions:
    """Return the intervention that adds a vector to each copy: ``by[site] [copies, d]``."""

    def function(site: str, h: Tensor) -> Tensor:
        vectors = by[site].to(h.dtype)
        return h + vectors.reshape(len(vectors), *[1] * (h.dim() - 2), h.shape[-1])

    return Interventions(name, len(next(iter(by.values()))), function)


def together(groups: Sequence[Interventions], sites: Sequence[str]) -> tuple[dict[str, Edit], int]:
    """Return the edits of all groups for :meth:`Backbone.scores`, and the number of copies that they need."""
    sizes = [group.copies for group in groups]

    def edit_at(site: str) -> Edit:
        def function(h: Tensor) -> Tensor:
            parts = h.split(sizes)
            return torch.cat([group.function(site, copies) for group, copies in zip(groups, parts, strict=True)])

        return function

    return {site: edit_at(site) for site in sites}, sum(sizes)
