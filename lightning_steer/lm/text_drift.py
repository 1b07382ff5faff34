"""How edits change a decoder's predictions for neutral texts."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_steer.hooks import Edit
from lightning_steer.lm.decoder import Decoder
from lightning_steer.lm.head import at_once
from lightning_steer.lm.positions import Positions
from lightning_steer.lm.tokens import TokenBatch, TokenRow, batches
from lightning_steer.metrics.drift import TextDrift, next_token_kl

CACHED = 2**20
"""Numbers that a processor's cache holds beside others."""


def text_drift(
    decoder: Decoder,
    rows: Sequence[TokenRow],
    positions: Positions,
    edits: Mapping[str, Edit],
    copies: int,
    pad: int,
    tokens_per_batch: int,
) -> TextDrift:
    """Return the drift of every text under each of ``copies`` edits; only tokens from the first steered one count.

    Args:
        decoder: the unsteered decoder.
        rows: one for each text.
        positions: which tokens are steered. If these are none of a prompt, a text is read as generated after its first
            token.
        edits: at each site, of ``copies`` copies of the rows.
        copies: how many.
        pad: the token that fills rows up.
        tokens_per_batch: tokens that run through the network at once, copies counted.
    """
    longest = max(len(row.ids) for row in rows)
    kl = torch.full((copies, len(rows), longest), torch.nan, dtype=torch.float64)
    logp = torch.zeros(copies + 1, len(rows), dtype=torch.float64)
    tokens = torch.zeros(len(rows))
    for batch_rows in batches(rows, max(1, tokens_per_batch // (copies + 1))):
        batch = decoder.collate(batch_rows, pad)
        if _steered_tokens(positions, batch).sum() == 0:
            batch = batch._replace(prompt=torch.ones_like(batch.prompt))
        plain = decoder.states(batch)
        with decoder.steered(batch, edits, positions.mask(batch.index, batch.prompt), copies) as run:
            steered = run.split(decoder.states(batch))
        r, t = (_steered_tokens(positions, batch).cumsum(1).gt(0) & (batch.index >= 0)).nonzero().T
        next_tokens = torch.cat([batch.ids[:, 1:], batch.ids[:, :1]], 1)[r, t]
        has_next = torch.cat([batch.index[:, 1:] > 0, batch.index[:, :1] < 0], 1)[r, t].cpu()
        example = torch.tensor([row.example for row in batch_rows])[r.cpu()]
        tokens.index_add_(0, example, has_next.float())
        size = at_once(len(decoder.embedding))
        for some in (slice(start, start + size) for start in range(0, len(r), size)):
            base = decoder.logits(plain[r[some], t[some]]).log_softmax(-1)
            for i, h in enumerate([plain, *steered]):
                if i == 0:
                    token_logp = base.gather(1, next_tokens[some].unsqueeze(1)).squeeze(1)
                else:
                    token_logp, values = _compared(base, decoder.logits(h[r[some], t[some]]), next_tokens[some])
                    # NaN in kl marks a place without a token, so an undefined divergence is stored as infinite.
                    values = values.nan_to_num(nan=torch.inf, posinf=torch.inf)
                    kl[i - 1, example[some], t[some].cpu()] = values.cpu().double()
                scored = torch.where(has_next[some], token_logp.cpu().double(), 0.0)
                logp[i].index_add_(0, example[some], scored)
    return TextDrift(kl, logp[0], logp[1:], tokens)


def _steered_tokens(positions: Positions, batch: TokenBatch) -> Tensor:
    mask = positions.mask(batch.index, batch.prompt)
    return (batch.index >= 0) if mask is None else mask & (batch.index >= 0)


def _compared(base: Tensor, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``[n]`` log-probabilities of tokens by ``logits [n, V]``, and the KL of these from ``base [n, V]``.

    On a CPU a few rows at a time: what stays in its cache takes a third of the time.
    """
    rows = max(1, CACHED // base.shape[1] if base.device.type == "cpu" else len(base))
    pieces = []
    for before, after, token in zip(base.split(rows), logits.split(rows), tokens.split(rows), strict=True):
        logp = after.log_softmax(-1)
        pieces.append((logp.gather(1, token.unsqueeze(1)).squeeze(1), next_token_kl(before, logp)))
    predicted, kl = (torch.cat(piece) for piece in zip(*pieces, strict=True))
    return predicted, kl
