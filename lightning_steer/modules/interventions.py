"""Several ways of steering side by side: each is some copies of the batch, and one forward pass answers all."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.hooks import Edit
from lightning_steer.methods.base import Steering

SiteEdit = Callable[[str, Tensor], Tensor]
"""``(site, h [copies, B, ..., d]) -> h'``."""


class Candidates(NamedTuple):
    """``copies`` candidates under one name; the function edits all of them at once."""

    name: str
    copies: int
    function: SiteEdit


def unsteered() -> Candidates:
    """The network as it is."""
    return Candidates("unsteered", 1, lambda _site, h: h)


def steered(name: str, maps: Mapping[str, Steering], strengths: Sequence[float]) -> Candidates:
    """One fitted map for each site, at every strength."""

    def function(site: str, h: Tensor) -> Tensor:
        return maps[site](h, torch.tensor(strengths, dtype=torch.float32, device=h.device))

    return Candidates(name, len(strengths), function)


def refitted(name: str, family: Sequence[Mapping[str, Steering]], strength: float) -> Candidates:
    """Differently fitted maps at one strength."""

    def function(site: str, h: Tensor) -> Tensor:
        return torch.stack([maps[site](copy, strength) for maps, copy in zip(family, h, strict=True)])

    return Candidates(name, len(family), function)


def replaced(name: str, by: Mapping[str, Tensor]) -> Candidates:
    """The site's output is overwritten by something of the same shape, or one row for all."""
    return Candidates(name, 1, lambda site, h: by[site].to(h.dtype).expand_as(h))


def shifted(name: str, by: Mapping[str, Tensor]) -> Candidates:
    """A vector is added for each copy: ``by[site] [copies, d]``."""

    def function(site: str, h: Tensor) -> Tensor:
        vectors = by[site].to(h.dtype)
        return h + vectors.reshape(len(vectors), *[1] * (h.dim() - 2), h.shape[-1])

    return Candidates(name, len(next(iter(by.values()))), function)


def together(groups: Sequence[Candidates], sites: Sequence[str]) -> tuple[dict[str, Edit], int]:
    """The edits of all groups for :meth:`Backbone.scores`, and how many copies they take."""
    sizes = [group.copies for group in groups]

    def at(site: str) -> Edit:
        def function(h: Tensor) -> Tensor:
            parts = h.split(sizes)
            return torch.cat([group.function(site, part) for group, part in zip(groups, parts, strict=True)])

        return function

    return {site: at(site) for site in sites}, sum(sizes)
