"""Make a vector from a backbone and the methods that were fitted to it."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_steer.errors import UserError
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import AllTokens
from lightning_steer.networks.backbone import Backbone
from lightning_steer.vectors import fingerprint
from lightning_steer.vectors.card import Card, Site, Strength
from lightning_steer.vectors.file import SteeringVector, settings, units
from lightning_steer.vectors.steer import as_plain
from lightning_steer.versions import versions


def of(
    backbone: Backbone,
    maps: Mapping[str, nn.Module],
    strength: float,
    interval: tuple[float, float] | None = None,
    rows: int | None = None,
    **known: Any,
) -> SteeringVector:
    """Return a vector with its card, ready to be saved.

    Args:
        backbone: the loaded network.
        maps: a fitted method, all of one kind, for each of the backbone's sites by name.
        strength: the chosen strength.
        interval: its interval, if there is one.
        rows: number of rows that it was chosen on.
        known: further entries of the card: ``task``, ``data``, ``effect``, ``drift``, ``licence`` and so on.

    Raises:
        ValueError: the methods differ in kind or settings, or a site is not one of the backbone's.
    """
    kinds = {(type(method).__name__, str(settings(method))) for method in maps.values()}
    if len(kinds) != 1 or not maps.keys() <= set(backbone.sites):
        raise UserError(
            f"a vector is one kind of map at sites of its backbone ({', '.join(backbone.sites)}), not "
            f"{', '.join(sorted(kind + arguments for kind, arguments in kinds))} at {', '.join(maps)}"
        )
    layers = backbone.layers if isinstance(backbone, LLM) else [None] * len(backbone.sites)
    part = backbone.part if isinstance(backbone, LLM) else "block"
    places = [
        Site(layer, part, name, backbone.width(name))
        for layer, name in zip(layers, backbone.sites, strict=True)
        if name in maps
    ]
    ordered = [maps[site.module] for site in places]
    low, high = interval or (None, None)
    positions = backbone.positions if isinstance(backbone, LLM) else AllTokens()
    card = Card(
        method=type(ordered[0]).__name__,
        settings=settings(ordered[0]),
        sites=places,
        strength=Strength(float(strength), units(ordered[0]), low, high, rows),
        positions=as_plain(positions),
        model=fingerprint.of_backbone(backbone),
        versions=versions(),
        chat=backbone.chat if isinstance(backbone, LLM) else None,
        **known,
    )
    return SteeringVector(ordered, card)
