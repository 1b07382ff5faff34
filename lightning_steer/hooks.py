"""The verbs: read and write the output or the input of any submodule. Imports nothing of the project.

Reading is an edit that returns what it was given, so what is read is exactly what the next layer sees.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lightning_steer.errors import UserError

Edit = Callable[[Tensor], Tensor]
"""``h -> h'``, the replacement for a site's output."""
INPUT = ":input"
"""Ends the name of a site that is the first input of a submodule, not its output. No submodule's name has a colon."""


class UnknownSite(UserError, LookupError):
    """A site was named that the network does not have."""


def submodule(network: nn.Module, site: str) -> nn.Module:
    """The submodule whose output or input ``site`` is; raises :class:`UnknownSite` naming those that there are."""
    try:
        return network.get_submodule(site.removesuffix(INPUT))
    except AttributeError:
        known = ", ".join(name for name, _ in network.named_modules() if name)
        raise UnknownSite(
            f"site {site!r} does not exist in {type(network).__name__}; its submodules are: {known}"
        ) from None


def is_edited(network: nn.Module, site: str) -> bool:
    """Whether a site is being edited or read."""
    module = submodule(network, site)
    return bool(module._forward_pre_hooks if site.endswith(INPUT) else module._forward_hooks)


@contextmanager
def edit(network: nn.Module, edits: Mapping[str, Edit]) -> Iterator[None]:
    """While the block runs, the output of every named submodule is replaced by ``edits[name](output)``.

    A name that ends in :data:`INPUT` is that of the submodule's first input, which is replaced likewise. A layer that
    returns a tuple keeps the tuple; only its first element, the residual stream, is replaced. Edits of the same site
    nest: the inner block sees what the outer one wrote. Nothing stays behind, whatever is raised.

    Raises:
        LookupError: the network has no such submodule.
        ValueError: it, or what it is part of, was compiled.
    """
    handles = []
    try:
        for site, function in edits.items():
            module = submodule(network, site)
            _refuse_compiled(network, site)
            if site.endswith(INPUT):
                handles.append(module.register_forward_pre_hook(_replace_input(function)))
            else:
                handles.append(module.register_forward_hook(_replace(function)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _refuse_compiled(network: nn.Module, site: str) -> None:
    """Raise UserError if a module on the way to a site was compiled: it would not run hooks that come later."""
    modules, names = [network], site.removesuffix(INPUT).split(".") if site else []
    for name in names:
        modules.append(modules[-1].get_submodule(name))
    for module in modules:
        if getattr(module, "_compiled_call_impl", None) is not None or "_orig_mod" in module._modules:
            raise UserError(
                f"{type(module).__name__} was compiled before it is steered at {site}, so it may not run its hooks: "
                "steer the model as it was before torch.compile, and compile it inside the block"
            )


@contextmanager
def capture(network: nn.Module, sites: list[str]) -> Iterator[dict[str, Tensor]]:
    """While the block runs, the latest output of every named submodule is put into the dictionary that is yielded.

    It is a copy: some decoders go on to add to a submodule's output in place (Falcon to its MLP's).
    """
    captured: dict[str, Tensor] = {}

    def keep(site: str) -> Edit:
        def read(h: Tensor) -> Tensor:
            captured[site] = h.clone()
            return h

        return read

    with edit(network, {site: keep(site) for site in sites}):
        yield captured


@contextmanager
def inputs(network: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Record what a decoder layer reads, ``[B, T, d]`` a call, while the block runs; by a hook that edits nothing."""
    recorded: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorded.append((args[0] if args else kwargs["hidden_states"]).clone())

    handle = network.get_submodule(layer).register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield recorded
    finally:
        handle.remove()


@contextmanager
def fan_out(
    network: nn.Module, layers: list[str], rows: int, running: Callable[[], Tensor], repeat_input: bool
) -> Iterator[None]:
    """Inside, the named layers run on copies of the rows of a batch; what lies below is computed once.

    The masks and positions that the network hands to each layer are copied likewise.

    Args:
        network: which has the layers.
        layers: their names.
        rows: number of rows of the batch.
        running: ``[m]`` which of these each row is that runs, when a layer begins.
        repeat_input: copy the input of the first of the layers; else an edit of the layer below has done so.
    """
    handles = []
    try:
        for layer in layers:
            _refuse_compiled(network, layer)
            hook = _repeat_rows(rows, running, repeat_input and layer == layers[0])
            handles.append(submodule(network, layer).register_forward_pre_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


PER_ROW = ("attention_mask", "position_ids", "position_embeddings", "alibi")
"""What decoders hand to their layers beside the residual stream, with rows in the first dimension (or one for all)."""


def _replace(function: Edit) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (function(output[0]), *output[1:])
        return function(output)

    return hook


def _replace_input(function: Edit) -> Callable[[nn.Module, Any], Any]:
    def hook(_module: nn.Module, inputs: Any) -> Any:
        return (function(inputs[0]), *inputs[1:])

    return hook


def _repeat_rows(rows: int, running: Callable[[], Tensor], repeat_stream: bool) -> Callable[..., Any]:
    def repeated(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(repeated, value))
        if isinstance(value, Tensor) and value.dim() > 1 and value.shape[0] > 1 and value.shape[0] % rows == 0:
            return value.unflatten(0, (rows, -1))[running().to(value.device)].flatten(0, 1)
        return value

    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        inputs = {**dict(zip(inspect.signature(module.forward).parameters, args, strict=False)), **kwargs}
        stream, h = next(iter(inputs.items())) if args else ("hidden_states", kwargs["hidden_states"])
        inputs = {name: repeated(value) if name in PER_ROW else value for name, value in inputs.items()}
        if repeat_stream:
            inputs[stream] = h[running().to(h.device)]
        return tuple(inputs.values())[: len(args)], {name: inputs[name] for name in kwargs}

    return hook
