"""Steer a model with a vector in a ``with`` block: ``with edit(model, vector, strength=2.0): model.generate(...)``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from lightning_steer import hooks
from lightning_steer.errors import UserError
from lightning_steer.lm import positions, row_order, tracking
from lightning_steer.lm.decoder import entry
from lightning_steer.lm.families import check_family
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.sites import site_of, site_width
from lightning_steer.strength import check_strength
from lightning_steer.vectors import fingerprint
from lightning_steer.vectors.card import Card, Model, Site
from lightning_steer.vectors.file import SteeringVector


@contextmanager
def edit(
    model: nn.Module,
    vector: SteeringVector | Sequence[SteeringVector],
    strength: Tensor | float | Sequence[Tensor | float] | None = None,
    tokenizer: Any = None,
    prompt_lengths: Tensor | None = None,
    other_model: bool = False,
) -> Iterator[None]:
    """Steer every use of the model inside the block, including ``generate``, on the tokens that the card names.

    Args:
        model: a Hugging Face model, an :class:`~lightning_steer.LLM`, or another network with the card's sites.
        vector: result of :func:`~lightning_steer.vectors.load` or :func:`~lightning_steer.vectors.of`; or several, each
            on the tokens of its card. Where they share a site their changes of the same activation are added.
        strength: in the units of the card, a number or ``[B]``, one for each row; None for the card's own. Of several
            vectors a list, one for each.
        tokenizer: compared with the card's; None for the LLM's own, or none.
        prompt_lengths: ``[B]`` number of tokens of each prompt; None treats the first call of each ``generate``, and
            any other call without a cache, as a whole prompt.
        other_model: whether to steer this model although the vector was fitted on another one.

    Raises:
        ValueError: the model is not the card's, has no such site, or has another width.
    """
    network: Any = model.model if isinstance(model, LLM) else model
    if hasattr(network, "config"):
        check_family(network.config, type(network).__name__)
    vectors, amounts = _with_strengths(vector, strength)
    if not other_model:

        def identify(files: bool) -> Model:
            if isinstance(model, LLM):
                return fingerprint.of_backbone(model, files)
            return fingerprint.of(network, tokenizer, files=files)

        for single in vectors:
            fingerprint.refuse(single.card.model, identify)
    sites = [[module_of(network, site) for site in single.card.sites] for single in vectors]
    with ExitStack() as stack:
        tokens = None
        if hasattr(network, "config"):
            needed = not all(isinstance(positions_of(single.card), positions.AllTokens) for single in vectors)
            tokens = stack.enter_context(tracking.follow(network, entry(network), prompt_lengths, needed))
        edits: dict[str, list[hooks.Edit]] = {}
        for single, amount, names in zip(vectors, amounts, sites, strict=True):
            for name, method in zip(names, single.maps, strict=True):
                function = _edit(network, name, method, amount, tokens)
                if tokens is not None:
                    function = tracking.restricted(function, tokens, positions_of(single.card))
                edits.setdefault(name, []).append(function)
        if any(isinstance(amount, Tensor) and amount.dim() for amount in amounts):
            stack.enter_context(row_order.row_by_row(network))
        stack.enter_context(hooks.edit(network, {name: added(functions) for name, functions in edits.items()}))
        yield


def _with_strengths(
    vector: SteeringVector | Sequence[SteeringVector], strength: Tensor | float | Sequence[Tensor | float] | None
) -> tuple[list[SteeringVector], list[Any]]:
    """Return the vectors and a strength for each; raise ValueError if they are not as many, or no numbers."""
    several = not isinstance(vector, SteeringVector)
    vectors = list(vector) if several else [vector]
    if not vectors:
        raise UserError("there is no vector to steer with: give one at least")
    if several and strength is not None and not isinstance(strength, (list, tuple)):
        raise UserError(f"several vectors take a list of strengths, one for each, not {str(strength)[:60]}")
    requested: Any = [None] * len(vectors) if strength is None else strength if several else [strength]
    if len(requested) != len(vectors):
        raise UserError(f"{len(vectors)} vectors take as many strengths, not {len(requested)}")
    amounts = [
        single.card.strength.value if amount is None else amount
        for single, amount in zip(vectors, requested, strict=True)
    ]
    for amount in amounts:
        check_strength(amount)
    return vectors, amounts


def added(functions: Sequence[hooks.Edit]) -> hooks.Edit:
    """Return the edit that adds what several edits change of the same activation; of one, that edit."""
    if len(functions) == 1:
        return functions[0]

    def function(h: Tensor) -> Tensor:
        wide = h.float()
        return (wide + sum(edited(h).float() - wide for edited in functions)).to(h.dtype)

    return function


def joined(*several: Mapping[str, hooks.Edit]) -> dict[str, hooks.Edit]:
    """Return edits by site, added where several act at one site."""
    sites = dict.fromkeys(site for edits in several for site in edits)
    return {site: added([edits[site] for edits in several if site in edits]) for site in sites}


def module_of(network: nn.Module, site: Site) -> str:
    """Return the site's name in this network; raise ValueError if it has no such site, or one of another width."""
    config = getattr(network, "config", None)
    if config is None or site.layer is None:
        hooks.submodule(network, site.module)
        return site.module
    layers = config.get_text_config().num_hidden_layers
    name = site_of(network, min(site.layer, layers - 1), site.part)
    width = site_width(network, name)
    if site.width != width or site.layer >= layers:
        raise UserError(
            f"the vector is of width {site.width} at block {site.layer}, but {type(network).__name__} has {layers} "
            f"blocks of width {width}, counted from 0: it belongs to another model"
        )
    return name


def positions_of(card: Card) -> positions.Positions:
    """Return the rule that selects the tokens; raise ValueError if it is unknown."""
    rules = {kind.__name__: kind for kind in positions.Positions.__subclasses__()}
    name, settings = card.positions["name"], {key: value for key, value in card.positions.items() if key != "name"}
    text = str(card.positions)[:80]
    if name not in rules or any(not isinstance(value, int) for value in settings.values()):
        raise UserError(f"the card steers tokens by {text}, which is not known; known are {', '.join(sorted(rules))}")
    try:
        return rules[name](**settings)
    except TypeError as error:
        raise UserError(f"the card steers tokens by {text}: {error}") from error


def as_plain(rule: positions.Positions) -> dict[str, Any]:
    """Return a rule in the form of cards."""
    return {"name": type(rule).__name__, **vars(rule)}


def _edit(
    network: nn.Module, name: str, method: nn.Module, strength: Tensor | float, tokens: tracking.TokenTracker | None
) -> Callable[[Tensor], Tensor]:
    weight = next(hooks.submodule(network, name).parameters(), None)
    if weight is not None and not weight.is_meta:
        method.to(weight.device)

    def function(h: Tensor) -> Tensor:
        if isinstance(strength, Tensor) and strength.dim():
            row_strengths = strength.to(h.device)
            return method(h, row_strengths if tokens is None else tokens.per_row(row_strengths, len(h)))
        return method(h, strength)

    return function
