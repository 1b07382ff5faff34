"""Find the weights whose products are added to the residual stream, by running the model and comparing.

No list of families: in each attention and MLP the last linear layer that runs is the candidate, and what it is worth is
measured. A norm or a routing weight between it and the stream shows as a change that differs from token to token.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lightning_steer import hooks
from lightning_steer.errors import UserError
from lightning_steer.lm.decoder import Decoder
from lightning_steer.lm.sites import site_of

PARTS = ("attention", "mlp")
EXPERTS = "down_proj"
"""Name in transformers of the experts' last weights, one tensor for all of them."""
CLOSE, ROUNDING = 1e-4, 1e-5
"""Largest difference from a sum or a constant that is accepted: a share of its size, and of the stream's beside it."""


class Weight(NamedTuple):
    """A tensor of weights with an axis along the residual stream, and its bias."""

    module: str
    name: str
    axis: int
    bias: str | None
    """Name of the bias beside it, whether or not the model has it; None where there can be none."""


class BlockPart(NamedTuple):
    """The attention or MLP of a block, and the weights that make its output."""

    site: str
    weights: tuple[Weight, ...]
    is_mixture: bool


def part_of(decoder: Decoder, layer: int, part: str, ids: Tensor) -> BlockPart:
    """Return the weights that make a part's output; raise ValueError if they cannot be told."""
    model, site = decoder.model, site_of(decoder.model, layer, part)
    names = [name for name, _ in model.named_modules() if name == site or name.startswith(f"{site}.")]
    stacked = [name for name in names if _experts(model.get_submodule(name))]
    mixed = [n for n in names if any(p.dim() > 2 for p in model.get_submodule(n).parameters(recurse=False))]
    if mixed != stacked:
        raise UserError(f"{mixed[0]} holds its weights in a form that is not known here, so it cannot be changed")
    linear = [name for name in names if isinstance(model.get_submodule(name), (nn.Linear, Conv1D))]
    if stacked:
        groups = {name.removeprefix(f"{site}.").split(".")[0] for name in linear if "shared" in name}
        shared = [_last(decoder, [n for n in linear if n.startswith(f"{site}.{g}.")], ids) for g in sorted(groups)]
        shared = [weight for weight in shared if weight is not None]
        return BlockPart(site, (*(_experts_weight(decoder, name) for name in stacked), *shared), True)
    last = _last(decoder, linear, ids)
    if last is None:
        raise UserError(f"{site} runs no linear layer that makes vectors of width {decoder.width}")
    return BlockPart(site, (last,), False)


def embeddings_of(decoder: Decoder, ids: Tensor) -> tuple[Weight, ...]:
    """Return the embeddings whose sum enters the first block; raise ValueError if something else does."""
    model, outputs = decoder.model, dict[str, Tensor]()
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        and module.embedding_dim == decoder.width
        and not name.startswith(f"{decoder.blocks}.")
    ]
    with _recorded(model, names, outputs), hooks.inputs(model, f"{decoder.blocks}.0") as entering:
        model(ids, use_cache=False)
    if not outputs or not _is_sum(entering[0], [h.expand_as(entering[0]) for h in outputs.values()]):
        raise UserError(
            "what enters the first block is not a sum of embeddings: a norm or projection lies between, and there a "
            "direction that is removed from the embeddings comes back"
        )
    return tuple(Weight(name, "weight", 1, None) for name in outputs)


def gain(decoder: Decoder, weight: Weight, module: str, ids: Tensor) -> float | None:
    """Return the factor by which a bias beside a weight reaches a module's output; None if it is no constant."""
    model: Any = decoder.model
    with hooks.capture(model, [module]) as captured:
        model(ids, use_cache=False)
    before = captured[module].double()
    size = float(before.norm(dim=-1).mean()) or 1.0
    delta = torch.randn(decoder.width, generator=torch.Generator().manual_seed(1)).to(before.device)
    delta = size * delta / delta.norm()
    with _bias_moved(model, weight, delta), hooks.capture(model, [module]) as captured:  # it reads what the bias moved
        model(ids, use_cache=False)
    moved = captured[module].double() - before
    wide = delta.double()
    factor = float((moved @ wide).mean() / (wide @ wide))
    if not float((moved - factor * wide).abs().max()) <= CLOSE * float(wide.abs().max()) + ROUNDING * size:
        return None
    return None if abs(factor) < 1e-3 else round(factor, 6) if abs(factor - round(factor)) < 1e-5 else factor


def is_output(decoder: Decoder, part: BlockPart, ids: Tensor) -> bool:
    """Return whether a part's output is a multiple of what its weights make, and nothing is added to it."""
    if part.is_mixture:
        return True
    outputs: dict[str, Tensor] = {}
    names = [part.site, part.weights[0].module]
    with _recorded(decoder.model, names, outputs):
        decoder.model(ids, use_cache=False)
    return _is_sum(outputs[names[0]], [outputs[names[1]]])


def all_writers(decoder: Decoder, ids: Tensor) -> list[BlockPart]:
    """Return the parts of all blocks; raise ValueError if a block's output is not its input plus their outputs."""
    model, parts = decoder.model, list[BlockPart]()
    by_layer = [[part_of(decoder, layer, name, ids) for name in PARTS] for layer in range(decoder.depth)]
    sites = [[part.site if part.is_mixture else part.weights[0].module for part in row] for row in by_layer]
    outputs: dict[str, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(_recorded(model, [name for row in sites for name in row], outputs))
        entering = [stack.enter_context(hooks.inputs(model, f"{decoder.blocks}.{i}")) for i in range(decoder.depth)]
        leaving = stack.enter_context(hooks.capture(model, [f"{decoder.blocks}.{i}" for i in range(decoder.depth)]))
        model(ids, use_cache=False)
    for layer, (row, names) in enumerate(zip(by_layer, sites, strict=True)):
        block = f"{decoder.blocks}.{layer}"
        if not _is_sum(leaving[block] - entering[layer][0], [outputs[name] for name in names], leaving[block]):
            raise UserError(
                f"what {block} adds to the stream is not the sum of {' and '.join(names)}: a norm lies after a last "
                "linear layer (Gemma 2 and 3, OLMo 2), or something else writes to the stream, so that a direction "
                "removed from these weights comes back"
            )
        parts += row
    return parts


def _experts(module: nn.Module) -> bool:
    tensor = getattr(module, EXPERTS, None)
    return isinstance(tensor, nn.Parameter) and tensor.dim() == 3


def _experts_weight(decoder: Decoder, name: str) -> Weight:
    module = decoder.model.get_submodule(name)
    axis = 2 if getattr(module, "is_transposed", False) else 1
    if getattr(module, EXPERTS).shape[axis] != decoder.width:
        raise UserError(f"{name}.{EXPERTS} has no axis of width {decoder.width} where it is expected")
    return Weight(name, EXPERTS, axis, f"{EXPERTS}_bias")


def _last(decoder: Decoder, names: list[str], ids: Tensor) -> Weight | None:
    """Return the weights of the linear layer that runs last among these."""
    order: list[str] = []
    handles = [
        decoder.model.get_submodule(name).register_forward_hook(lambda *_args, name=name: order.append(name))
        for name in names
    ]
    try:
        decoder.model(ids[:1, :2], use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if not order:
        return None
    module = decoder.model.get_submodule(order[-1])
    axis = 1 if isinstance(module, Conv1D) else 0
    return Weight(order[-1], "weight", axis, "bias") if module.weight.shape[axis] == decoder.width else None


@contextmanager
def _recorded(model: nn.Module, names: list[str], outputs: dict[str, Tensor]) -> Iterator[None]:
    def keep(name: str) -> hooks.Edit:
        def read(h: Tensor) -> Tensor:
            outputs[name] = h.clone()  # Falcon goes on to add to its MLP's output in place
            return h

        return read

    with hooks.edit(model, {name: keep(name) for name in names}):
        yield


@contextmanager
def _bias_moved(model: nn.Module, weight: Weight, delta: Tensor) -> Iterator[None]:
    module = model.get_submodule(weight.module)
    if isinstance(module, (nn.Linear, Conv1D)):
        with hooks.edit(model, {weight.module: lambda h: h + delta.to(h.dtype)}):
            yield
        return
    bias = getattr(module, str(weight.bias))
    values = bias.data
    bias.data = values + delta.to(values)
    try:
        yield
    finally:
        bias.data = values


def _is_sum(total: Tensor, terms: list[Tensor], stream: Tensor | None = None) -> bool:
    """Return whether a tensor is a sum of others with one factor each, up to the rounding of float32."""
    target = total.double().flatten()
    columns = torch.stack([term.double().flatten() for term in terms], 1)
    factors = torch.linalg.lstsq(columns, target.unsqueeze(1)).solution
    beside = 0.0 if stream is None else float(stream.abs().max())
    size = CLOSE * float(target.abs().max()) + ROUNDING * beside
    return float((columns @ factors - target.unsqueeze(1)).abs().max()) <= size
