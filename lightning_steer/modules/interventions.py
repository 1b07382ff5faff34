"""Several ways of steering side by side: each is some copies of the batch, and one forward pass answers all."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.hooks import Edit
from lightning_steer.methods.base import SteeringMethod

SiteEdit = Callable[[str, Tensor], Tensor]
"""``(site, h [copies, B, ..., d]) -> h'``."""


class Interventions(NamedTuple):
    """``copies`` candidates under one name; the function edits all of them at once."""

    name: str
    copies: int
    function: SiteEdit


def unsteered() -> Interventions:
    """The network as it is."""
    return Interventions("baseline", 1, lambda _site, h: h)


def steered(name: str, maps: Mapping[str, SteeringMethod], strengths: Sequence[float]) -> Interventions:
    """One fitted map for each site, at every strength."""

    def function(site: str, h: Tensor) -> Tensor:
        return maps[site](h, torch.tensor(strengths, dtype=torch.float32, device=h.device))

    return Interventions(name, len(strengths), function)


def refitted(name: str, family: Sequence[Mapping[str, SteeringMethod]], strength: float) -> Interventions:
    """Differently fitted maps at one strength."""

    def function(site: str, h: Tensor) -> Tensor:
        return torch.stack([maps[site](copy, strength) for maps, copy in zip(family, h, strict=True)])

    return Interventions(name, len(family), function)


def replaced(name: str, by: Mapping[str, Tensor]) -> Interventions:
    """The site's output is overwritten by something of the same shape, or one row for all."""
    return Interventions(name, 1, lambda site, h: by[site].to(h.dtype).expand_as(h))


def shifted(name: str, by: Mapping[str, Tensor]) -> Interventions:
    """A vector is added for each copy: ``by[site] [copies, d]``."""

    def function(site: str, h: Tensor) -> Tensor:
        vectors = by[site].to(h.dtype)
        return h + vectors.reshape(len(vectors), *[1] * (h.dim() - 2), h.shape[-1])

    return Interventions(name, len(next(iter(by.values()))), function)


def together(groups: Sequence[Interventions], sites: Sequence[str]) -> tuple[dict[str, Edit], int]:
    """The edits of all groups for :meth:`Backbone.scores`, and how many copies they take."""
    sizes = [group.copies for group in groups]

    def at(site: str) -> Edit:
        def function(h: Tensor) -> Tensor:
            parts = h.split(sizes)
            return torch.cat([group.function(site, part) for group, part in zip(groups, parts, strict=True)])

        return function

    return {site: at(site) for site in sites}, sum(sizes)
