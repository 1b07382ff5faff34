"""Compute logits with the model's own code after its last states, whatever it does with its vocabulary head.

Families scale the logits (Cohere, Granite), multiply or bound them (Falcon-H1, Gemma 2). So the head is not rebuilt:
the model runs, with the states in place of its decoder's output.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lightning_steer.hooks import INPUT, edit

NUMBERS, STATES = 2**26, 1024
"""Log-probabilities that are computed at once at most, and the states that they are of."""


def at_once(vocabulary: int) -> int:
    """Return after how many states the log-probabilities of all tokens are computed together: memory bounds them."""
    return min(STATES, max(1, NUMBERS // vocabulary))


def logits(model: Any, decoders: Collection[nn.Module], h: Tensor, tokens: Tensor | None = None) -> Tensor:
    """Return logits ``[m, V]`` float32 of states ``[m, d]``, or ``[m, n]`` of n tokens only.

    Args:
        model: a causal language model of transformers.
        decoders: modules that may return its states; it calls one of them (OPT calls its inner decoder).
        h: the decoder's output, after the last norm.
        tokens: ``[n]`` token ids; None for all. A plain linear head computes only their rows.
    """
    head = model.get_output_embeddings()
    selected = tokens is not None and type(head) is nn.Linear
    states = _States(h.unsqueeze(1))
    ids = torch.zeros(len(h), 1, dtype=torch.int64, device=model.get_input_embeddings().weight.device)

    def rows(x: Tensor) -> Tensor:
        return nn.functional.linear(x, head.weight[tokens], None if head.bias is None else head.bias[tokens])

    with ExitStack() as stack:
        for module in decoders:
            stack.enter_context(_replace_forward(module, lambda *_args, **_kwargs: states))
        if selected:
            stack.enter_context(_replace_forward(head, rows))
        scores = model(input_ids=ids, use_cache=False).logits[:, 0].float()
    return scores if selected or tokens is None else scores[:, tokens]


@contextmanager
def contiguous(model: Any) -> Iterator[None]:
    """Give the vocabulary head its states in one piece while the block runs.

    transformers hands it the last token of each prompt as a view of all tokens. Of such a view, torch multiplies every
    row by itself, and on a CPU copies the head's weight for each of them; for a single row too, which counts as
    contiguous whatever its strides are.
    """
    head = model.get_output_embeddings()

    def copied(h: Tensor) -> Tensor:
        return h.clone(memory_format=torch.contiguous_format)

    with nullcontext() if head is None else edit(head, {INPUT: copied}):
        yield


class _States(tuple):
    """Output of a decoder with hidden states only; every other attribute is None."""

    def __new__(cls, h: Tensor) -> "_States":
        """Hold ``h`` as the first of a decoder's outputs."""
        return super().__new__(cls, (h,))

    def __getattr__(self, name: str) -> Tensor | None:
        """Return the states for ``last_hidden_state``, else None."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self[0] if name == "last_hidden_state" else None


@contextmanager
def _replace_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace the module's ``forward`` while the block runs."""
    original = module.__dict__.get("forward")  # accelerate puts one onto the instance
    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        if original is None:
            del module.forward
        else:
            module.forward = original  # type: ignore[method-assign]
