"""Say which weights an edit changes, and the affine form its product goes through; or refuse with the reason."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_steer import hooks
from lightning_steer.errors import UserError
from lightning_steer.lm.decoder import Decoder
from lightning_steer.lm.language_model import LLM
from lightning_steer.vectors.bake import weights, writers
from lightning_steer.vectors.bake.affine import Affine, affine, removal
from lightning_steer.vectors.bake.writers import PARTS, Weight
from lightning_steer.vectors.card import Site
from lightning_steer.vectors.constant import constant
from lightning_steer.vectors.file import SteeringVector, state
from lightning_steer.vectors.steer import edit, module_of


class BakePlan(NamedTuple):
    """What changes in the weights, and the same edit by hooks."""

    changes: Mapping[Weight, Affine]
    """For each weight, the form that its product with any input goes through."""
    hooked: AbstractContextManager[None]
    """Steers the unchanged model while its ``with`` block runs."""
    operation: str


def tokens(decoder: Decoder) -> Tensor:
    """Return the ids ``[4, T]`` on which models are compared: random, and the same for every call."""
    length = int(min(24, decoder.longest))
    ids = torch.randint(len(decoder.embedding), (4, length), generator=torch.Generator().manual_seed(0))
    return ids.to(decoder.embedding.device)


@torch.no_grad()
def at_sites(llm: LLM, vector: SteeringVector, strength: float) -> BakePlan:
    """Return the plan for a vector at its own sites.

    Raises:
        ValueError: a method is not affine, or the model has no weights that do the same at that site.
    """
    _refuse_heads(vector)
    decoder, ids = llm.decoder, tokens(llm.decoder)
    changes: dict[Weight, Affine] = {}
    pairs = sorted(zip(vector.card.sites, vector.maps, strict=True), key=lambda pair: pair[0].part == "block")
    for site, method in pairs:  # what is written to a part's output reaches the block's output afterwards
        form, module = affine(method, strength), module_of(llm.model, site)
        for weight, change in _of_site(decoder, site, module, form, ids).items():
            changes[weight] = changes[weight].then(change) if weight in changes else change
    places = ", ".join(module_of(llm.model, site) for site in vector.card.sites)
    return BakePlan(changes, edit(llm, vector, strength), f"{vector.card.method} at strength {strength:g} at {places}")


@torch.no_grad()
def everywhere(llm: LLM, vector: SteeringVector, strength: float | None) -> BakePlan:
    """Return the plan that takes the vector's direction out of the embedding and of every attention and MLP output.

    Args:
        llm: the model.
        vector: a vector, whose direction is taken, or an ablation ``h - s r r'h`` of one direction.
        strength: the share s that is removed; None for all of it, or for what the ablation removes at its own strength.

    Raises:
        ValueError: the file has no single direction, or the model adds to the stream otherwise.
    """
    _refuse_heads(vector)
    direction, share = direction_of(vector)
    share = share if strength is None else strength
    decoder, ids = llm.decoder, tokens(llm.decoder)
    embeddings, parts = writers.embeddings_of(decoder, ids), writers.all_writers(decoder, ids)
    form = Affine(-share * torch.outer(direction, direction), torch.zeros_like(direction))
    changed = [*embeddings, *(weight for part in parts for weight in part.weights)]
    removed = f"a direction removed (share {share:g}) from the embedding and every attention and MLP output"
    hooked = _removing(decoder, [part.site for part in parts], direction, share)
    return BakePlan(dict.fromkeys(changed, form), hooked, removed)


def _refuse_heads(vector: SteeringVector) -> None:
    if any(site.part == "heads" for site in vector.card.sites):
        raise UserError(
            "the vector steers the outputs of attention heads, which are not of the stream that weights write to: keep "
            "the vector file and steer with hooks"
        )


def direction_of(vector: SteeringVector) -> tuple[Tensor, float]:
    """Return the unit vector ``[d]`` (float64) of a file, and the share of it that is removed.

    Raises ValueError if its sites have several directions, or its method is neither a vector nor an ablation.
    """
    estimates = []
    for method in vector.maps:
        if set(state(method)) == {"vector"}:
            value = constant(method, 1.0).double()
            if not bool(value.any()):
                raise UserError("the vector is zero and has no direction")
            estimates.append((value / value.norm(), 1.0))
            continue
        direction_and_share = removal(affine(method, vector.card.strength.value))
        if direction_and_share is None:
            raise UserError(
                f"{vector.card.method} is neither a vector nor an ablation h - s r r'h of one direction: there is no "
                "direction that could be removed"
            )
        estimates.append(direction_and_share)
    first, share = estimates[0]
    if any(abs(float(first @ other)) < 1 - 1e-6 for other, _ in estimates):
        raise UserError(
            f"the vector has {len(estimates)} sites with different directions, and one direction is removed: export "
            "a vector of one layer"
        )
    return first, share


def _of_site(decoder: Decoder, site: Site, module: str, form: Affine, ids: Tensor) -> dict[Weight, Affine]:
    if site.layer is None:
        raise UserError(f"{module} is in no decoder: only decoders of transformers are baked")
    if site.part == "block":
        if form.matrix is not None:
            raise UserError(
                f"the method maps the whole stream after {module}, and no weight does: only vectors can be baked at a "
                "block's output, maps at an attention's or MLP's (an ablation also everywhere: --everywhere)"
            )
        return _of_block(decoder, site.layer, module, form, ids)
    part = writers.part_of(decoder, site.layer, site.part, ids)
    if form.matrix is not None and not writers.is_output(decoder, part, ids):
        raise UserError(
            f"{module} returns more than what {part.weights[0].module} makes, so that a map of it is no change of "
            "these weights"
        )
    return _with_offset(decoder, part, module, form, ids)


def _of_block(decoder: Decoder, layer: int, module: str, form: Affine, ids: Tensor) -> dict[Weight, Affine]:
    """Return the change of the MLP; of the attention where no MLP reads it and only the attention can have a bias."""
    reasons, options = list[str](), list[dict[Weight, Affine]]()
    for name in reversed(PARTS):
        try:
            part = writers.part_of(decoder, layer, name, ids)
            options.append(_with_offset(decoder, part, module, form, ids))
        except ValueError as error:
            reasons.append(str(error))
    if not options:
        raise UserError("; ".join(dict.fromkeys(reasons)))
    return next((o for o in options if all(weights.can_have_bias(decoder.model, w) for w in o)), options[0])


def _with_offset(
    decoder: Decoder, part: writers.BlockPart, module: str, form: Affine, ids: Tensor
) -> dict[Weight, Affine]:
    """Return the change of each weight of a part, with the offset as a bias of the first that can have one."""
    bare = Affine(form.matrix, torch.zeros_like(form.offset))
    changes = {} if form.matrix is None else dict.fromkeys(part.weights, bare)
    if not bool(form.offset.any()):
        return changes
    first = part.weights[0]
    network: Any = decoder.model.get_submodule(first.module)
    if part.is_mixture and getattr(network, str(first.bias), None) is None:
        raise UserError(f"the experts of {part.site} have no bias that could hold a vector")
    factor = writers.gain(decoder, first, module, ids)
    if factor is None:
        between = (
            "its routing weights do not add to the same for every token"
            if part.is_mixture
            else f"a norm, or a layer that reads it first, lies between {first.module} and {module}"
        )
        raise UserError(f"a vector in the bias of {first.module} does not reach {module} unchanged: {between}")
    changes[first] = Affine(form.matrix, form.offset / factor)
    return changes


@contextmanager
def _removing(decoder: Decoder, sites: list[str], direction: Tensor, share: float) -> Iterator[None]:
    """Take a direction out of what enters the first block and of the sites' outputs."""

    def remove(h: Tensor) -> Tensor:
        r = direction.to(h)
        return h - share * (h @ r).unsqueeze(-1) * r

    def entering(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (remove(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": remove(kwargs["hidden_states"])}

    first = decoder.model.get_submodule(f"{decoder.blocks}.0")
    with ExitStack() as stack:
        stack.callback(first.register_forward_pre_hook(entering, with_kwargs=True).remove)
        stack.enter_context(hooks.edit(decoder.model, dict.fromkeys(sites, remove)))
        yield
