"""Record one shard: the activations of some texts, in order, at the tokens to be read.

Texts run in batches of similar length. A hook at each site keeps only the tokens to be read; nothing is
computed above the last site.
"""

from contextlib import suppress
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.hooks import edit
from lightning_steer.lm.continuations import text_tokens
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import TokenRow, batches

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}


class Shard(NamedTuple):
    """The tensors of a shard."""

    h: Tensor
    """``[layers, rows, d]`` as stored; times ``scale``, the recorded values."""
    scale: Tensor
    """``[layers]`` float32, 1 unless stored as float16."""
    count: Tensor
    """``[texts]`` int64 number of rows of each text."""


@torch.inference_mode()
def record(llm: LLM, texts: list[str], first: int, each_token: bool, dtype: str) -> Shard:
    """Record the activations of texts.

    Args:
        llm: the loaded model; defines layers, part, tokens to be read, chat, and tokens per batch.
        texts: prompts, without the chat template.
        first: number of the first text in the data, for messages.
        each_token: whether to keep a row for each read token instead of their mean.
        dtype: data type of the stored values.

    Raises:
        ValueError: a text has no token, no token to be read or too many, or a non-finite activation.
    """
    ids = tokens_of(llm, texts, first)
    length = torch.tensor([len(row) for row in ids])
    index = torch.arange(int(length.max())).expand(len(ids), -1)
    index = index.where(index < length.unsqueeze(1), -1)
    padded = torch.full(index.shape, llm.pad)
    padded[index >= 0] = torch.tensor(list(chain.from_iterable(ids)))
    picked = llm.read_positions.mask(index, length)
    picked = index >= 0 if picked is None else picked
    count = picked.sum(1)
    if not count.all():
        empty = int((count == 0).nonzero()[0])
        raise UserError(
            f"{type(llm.read_positions).__name__} picks no token of text {first + empty}: {texts[empty][:60]!r}"
        )
    per_token = each_token or int(count.max()) == 1
    count = count if each_token else torch.ones_like(count)
    start = count.cumsum(0) - count
    memory_dtype = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    h = torch.empty(len(llm.sites), int(count.sum()), llm.width(llm.sites[0]), dtype=memory_dtype)
    for batch_rows in batches(
        [TokenRow(row, [], [], len(row), i, []) for i, row in enumerate(ids)], llm.tokens_per_batch
    ):
        text, longest = torch.tensor([row.example for row in batch_rows]), len(batch_rows[-1].ids)
        batch_picked = picked[text, :longest]
        slots = (start[text].unsqueeze(1) + batch_picked.cumsum(1) - 1)[batch_picked] if per_token else start[text]
        h[:, slots] = _forward(llm, padded[text, :longest], batch_picked, per_token, memory_dtype)
    _check_finite(llm, h, start, first)
    return Shard(*_stored(h, dtype), count)


def tokens_of(llm: LLM, texts: list[str], first: int = 0) -> list[list[int]]:
    """Return the token ids of texts as in :meth:`LLM.rows`, in one call of the tokenizer; raise ValueError."""
    encoded = text_tokens(llm.tokenizer, [llm.prompt(text) for text in texts], special=not llm.chat)
    for number, ids in enumerate(encoded, first):
        if not 0 < len(ids) <= llm.longest:
            raise UserError(
                f"text {number} has {len(ids)} tokens, and {llm.llm} takes 1 to {llm.longest}: "
                f"{texts[number - first][:60]!r}"
            )
    return encoded


class _Enough(Exception):
    """Stop the forward pass: all activations have been read."""


def _forward(llm: LLM, ids: Tensor, read: Tensor, per_token: bool, memory_dtype: torch.dtype) -> Tensor:
    """Return ``[layers, n, d]`` on the CPU, of each token that ``read [B, T]`` selects, or of each row their mean."""
    recorded: list[Tensor] = []
    ids, rows = ids.to(llm.device), read.shape
    selection = read.flatten().nonzero().squeeze(1) if per_token else (read / read.sum(1, keepdim=True)).unsqueeze(1)
    selection = selection.to(llm.device)

    def keep(h: Tensor) -> Tensor:
        local = selection.to(h.device)  # a device map spreads the layers
        if per_token:  # a site may see rows and tokens in one dimension, or in two
            recorded.append(h.reshape(-1, h.shape[-1])[local].to(memory_dtype))
        else:
            recorded.append((local @ h.reshape(*rows, -1).float()).squeeze(1).to(memory_dtype))
        if len(recorded) == len(llm.sites):
            raise _Enough
        return h

    with edit(llm.model, dict.fromkeys(llm.sites, keep)), suppress(_Enough):
        llm.model.base_model(input_ids=ids, use_cache=False)
    return torch.stack([h.to(recorded[-1].device) for h in recorded]).cpu()


def _stored(h: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """Return ``h`` as stored, and its scales ``[layers]``.

    float16 ends at 65,504, and some models have much larger values. Powers of two bring a layer's largest value
    below 2^15: this loses nothing unless relevant values are 2^29 times smaller.
    """
    scale = torch.ones(len(h))
    if dtype == "float16":
        scale = torch.exp2(torch.frexp(h.abs().amax((1, 2))).exponent - 15.0)
    return (h / scale.view(-1, 1, 1) if dtype == "float16" else h).to(DTYPES[dtype]), scale


def _check_finite(llm: LLM, h: Tensor, start: Tensor, first: int) -> None:
    if not torch.isfinite(h).all():
        layer, row, _ = (~torch.isfinite(h)).nonzero()[0].tolist()
        text = first + int(torch.searchsorted(start, row, right=True)) - 1
        raise UserError(
            f"the activations of text {text} at {llm.sites[layer]} are not finite: load the model with dtype float32 "
            "or bfloat16"
        )
