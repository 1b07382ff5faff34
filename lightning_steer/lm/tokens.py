"""Turn text into rows of tokens, in which the options of one prompt share its tokens."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.lm.continuations import continuations, text_tokens


class MultipleChoice(NamedTuple):
    """A prompt and the continuations to score after it; without any, a text to read."""

    prompt: str
    choices: tuple[str, ...] = ()


class TokenRow(NamedTuple):
    """One row of a batch: a prompt's tokens, then those of one or more options side by side."""

    ids: list[int]
    position: list[int]
    """Position of each token in its own text: every option starts again after the prompt."""
    segment: list[int]
    """0 for the prompt, else the option's number from 1: an option sees the prompt and itself."""
    prompt: int
    """Number of tokens of the prompt."""
    example: int
    reads: list[tuple[int, int, int]]
    """(slot whose output predicts it, token, option) for every token that is scored."""


def rows_of(tokenizer: Any, example: int, question: MultipleChoice, special: bool, pack: bool) -> list[TokenRow]:
    """Return the rows that score a question: one if all options follow the same prompt tokens, else one per option.

    Rows leave out the last token of an option: nothing is predicted from it.
    """
    if not question.choices:
        (ids,) = text_tokens(tokenizer, [question.prompt], special)
        if not ids:
            raise UserError(f"the text {question.prompt!r} has no token")
        return [TokenRow(ids, list(range(len(ids))), [0] * len(ids), len(ids), example, [])]
    split = continuations(tokenizer, question.prompt, question.choices, special)
    if pack and all(prefix == split[0][0] for prefix, _ in split):
        return [row_of(split[0][0], list(enumerate(ids for _, ids in split)), example)]
    return [row_of(prefix, [(i, ids)], example) for i, (prefix, ids) in enumerate(split)]


def row_of(prefix: list[int], options: list[tuple[int, list[int]]], example: int) -> TokenRow:
    """Return the row that scores options ``(place, tokens)`` after the tokens of a prompt."""
    ids, position, segment = list(prefix), list(range(len(prefix))), [0] * len(prefix)
    reads = []
    for number, tokens in options:
        slots = [len(prefix) - 1, *range(len(ids), len(ids) + len(tokens) - 1)]
        reads += [(slot, token, number) for slot, token in zip(slots, tokens, strict=True)]
        ids += tokens[:-1]
        position += range(len(prefix), len(prefix) + len(tokens) - 1)
        segment += [number + 1] * (len(tokens) - 1)
    return TokenRow(ids, position, segment, len(prefix), example, reads)


class TokenBatch(NamedTuple):
    """Right-padded rows as tensors."""

    ids: Tensor
    """``[R, T]``."""
    position: Tensor
    """``[R, T]``; 0 at padding."""
    mask: Tensor | None
    """``[R, 1, T, T]`` additive; None if plain causal attention is correct (padding follows every token read)."""
    index: Tensor
    """``[R, T]`` as ``position``, but -1 at padding."""
    prompt: Tensor
    """``[R]`` number of tokens of the prompt."""


def collate(rows: Sequence[TokenRow], pad: int, dtype: torch.dtype, device: torch.device) -> TokenBatch:
    """Pad rows on the right and stack them."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad)
    index, segment = torch.full((len(rows), longest), -1), torch.zeros(len(rows), longest, dtype=torch.int64)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n], index[i, :n] = torch.tensor(row.ids), torch.tensor(row.position)
        segment[i, :n] = torch.tensor(row.segment)
    mask = None
    if any(row.segment and max(row.segment) > 0 and len(set(row.segment) - {0}) > 1 for row in rows):
        visible = (segment.unsqueeze(1) == 0) | (segment.unsqueeze(1) == segment.unsqueeze(2))
        visible &= torch.ones(longest, longest, dtype=torch.bool).tril()
        mask = (
            torch.zeros(visible.shape, dtype=dtype)
            .masked_fill(~visible, torch.finfo(dtype).min)
            .unsqueeze(1)
            .to(device)
        )
    prompt = torch.tensor([row.prompt for row in rows])
    return TokenBatch(ids.to(device), index.clamp_min(0).to(device), mask, index.to(device), prompt.to(device))


def batches(rows: Sequence[TokenRow], tokens: int) -> list[list[TokenRow]]:
    """Group rows of similar length into batches of at most ``tokens`` tokens (or one row)."""
    groups: list[list[TokenRow]] = []
    for row in sorted(rows, key=lambda r: len(r.ids)):
        if groups and (len(groups[-1]) + 1) * len(row.ids) <= tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
