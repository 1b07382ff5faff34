"""Logits by the model itself: its own code from the last states on, whatever it does with its vocabulary head.

Families scale the logits (Cohere, Granite), multiply or bound them (Falcon-H1, Gemma 2). So the head is not rebuilt:
the model runs, with states in the place of what its decoder would give.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def logits(model: Any, decoders: Collection[nn.Module], h: Tensor, tokens: Tensor | None = None) -> Tensor:
    """Logits ``[m, V]`` float32 of states ``[m, d]``, or ``[m, n]`` of n tokens alone.

    Args:
        model: a causal language model of transformers.
        decoders: the modules that give it states, one of which it calls: OPT's model goes to its inner decoder.
        h: what its decoder gives, after the last norm.
        tokens: ``[n]`` the tokens wanted; null for all. Of a plain linear head only their rows are computed.
    """
    head = model.get_output_embeddings()
    few = tokens is not None and type(head) is nn.Linear
    states = _States(h.unsqueeze(1))
    ids = torch.zeros(len(h), 1, dtype=torch.int64, device=model.get_input_embeddings().weight.device)

    def rows(x: Tensor) -> Tensor:
        return nn.functional.linear(x, head.weight[tokens], None if head.bias is None else head.bias[tokens])

    with ExitStack() as stack:
        for module in decoders:
            stack.enter_context(_answering(module, lambda *_args, **_kwargs: states))
        if few:
            stack.enter_context(_answering(head, rows))
        found = model(input_ids=ids, use_cache=False).logits[:, 0].float()
    return found if few or tokens is None else found[:, tokens]


class _States(tuple):
    """What a decoder gives, states alone: whatever else a family's model asks for is null."""

    def __new__(cls, h: Tensor) -> "_States":
        """Hold ``h`` as the first of a decoder's outputs."""
        return super().__new__(cls, (h,))

    def __getattr__(self, name: str) -> Tensor | None:
        """The states by their name, or null."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self[0] if name == "last_hidden_state" else None


@contextmanager
def _answering(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """While the block runs, ``forward`` takes the place of the module's own."""
    own = module.__dict__.get("forward")  # accelerate puts one onto the instance
    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own  # type: ignore[method-assign]
