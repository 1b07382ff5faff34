"""Steer a model with a vector for a while: ``with edit(model, vector, strength=2.0): model.generate(...)``."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from lightning_steer import hooks
from lightning_steer.lm import positions
from lightning_steer.lm.decoder import entry, site_of
from lightning_steer.lm.families import check_family
from lightning_steer.lm.language_model import LLM
from lightning_steer.strength import check_strength
from lightning_steer.vectors import fingerprint
from lightning_steer.vectors.card import Card, Model, Site
from lightning_steer.vectors.file import SteeringVector


@contextmanager
def edit(
    model: nn.Module,
    vector: SteeringVector,
    strength: Tensor | float | None = None,
    tokenizer: Any = None,
    prompt_lengths: Tensor | None = None,
    other_model: bool = False,
) -> Iterator[None]:
    """While the block runs, every use of the model, ``generate`` too, is steered on the tokens that the card names.

    Args:
        model: a Hugging Face model, an :class:`~lightning_steer.LLM`, or another network with the card's sites.
        vector: what :func:`~lightning_steer.vectors.load` has read, or :func:`~lightning_steer.vectors.of` made.
        strength: in the units of the card, a number or ``[B]``, one for each row; None for the card's own.
        tokenizer: compared with the card's; None for the LLM's own, or none.
        prompt_lengths: ``[B]`` tokens of each prompt; None takes the first call of each ``generate``, and any other
            call without a cache, for a whole prompt.
        other_model: the vector was fitted on another model, and is to steer this one all the same.

    Raises:
        ValueError: the model is not the one of the card, has no such site, or is of another width.
    """
    network: Any = model.model if isinstance(model, LLM) else model
    if hasattr(network, "config"):
        check_family(network.config, type(network).__name__)
    if not other_model:

        def identify(files: bool) -> Model:
            if isinstance(model, LLM):
                return fingerprint.of_backbone(model, files)
            return fingerprint.of(network, tokenizer, files=files)

        fingerprint.refuse(vector.card.model, identify)
    amount = vector.card.strength.value if strength is None else strength
    check_strength(amount)
    maps = {module_of(network, site): method for site, method in zip(vector.card.sites, vector.maps, strict=True)}
    with ExitStack() as stack:
        tokens = None
        if hasattr(network, "config"):
            tokens = stack.enter_context(positions.follow(network, entry(network), prompt_lengths))
        edits = {name: _edit(network, name, method, amount, tokens) for name, method in maps.items()}
        if tokens is not None:
            rule = positions_of(vector.card)
            edits = {name: positions.restricted(function, tokens, rule) for name, function in edits.items()}
        if isinstance(amount, Tensor) and amount.dim():
            stack.enter_context(positions.row_by_row(network))
        stack.enter_context(hooks.edit(network, edits))
        yield


def module_of(network: nn.Module, site: Site) -> str:
    """The site's name in this network; raises ValueError if it has no such place, or one of another width."""
    config = getattr(network, "config", None)
    if config is None or site.layer is None:
        hooks.submodule(network, site.module)
        return site.module
    width, layers = config.get_text_config().hidden_size, config.get_text_config().num_hidden_layers
    if site.width != width or site.layer >= layers:
        raise ValueError(
            f"the vector is of width {site.width} at block {site.layer}, but {type(network).__name__} has {layers} "
            f"blocks of width {width}, counted from 0: it belongs to another model"
        )
    return site_of(network, site.layer, site.part)


def positions_of(card: Card) -> positions.Positions:
    """The rule that picks the tokens; raises ValueError on one that is not known."""
    known = {kind.__name__: kind for kind in positions.Positions.__subclasses__()}
    name, settings = card.positions["name"], {key: value for key, value in card.positions.items() if key != "name"}
    text = str(card.positions)[:80]
    if name not in known or any(not isinstance(value, int) for value in settings.values()):
        raise ValueError(f"the card steers tokens by {text}, which is not known; known are {', '.join(sorted(known))}")
    try:
        return known[name](**settings)
    except TypeError as error:
        raise ValueError(f"the card steers tokens by {text}: {error}") from error


def as_plain(rule: positions.Positions) -> dict[str, Any]:
    """How a card writes a rule."""
    return {"name": type(rule).__name__, **vars(rule)}


def _edit(
    network: nn.Module, name: str, method: nn.Module, strength: Tensor | float, tokens: positions.Tokens | None
) -> Callable[[Tensor], Tensor]:
    weight = next(network.get_submodule(name).parameters(), None)
    if weight is not None and not weight.is_meta:
        method.to(weight.device)

    def function(h: Tensor) -> Tensor:
        if isinstance(strength, Tensor) and strength.dim():
            row_strengths = strength.to(h.device)
            return method(h, row_strengths if tokens is None else tokens.per_row(row_strengths, len(h)))
        return method(h, strength)

    return function
