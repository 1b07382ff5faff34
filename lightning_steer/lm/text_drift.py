"""How edits change a decoder's predictions for neutral texts."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_steer.hooks import Edit
from lightning_steer.lm.decoder import Decoder
from lightning_steer.lm.positions import Positions
from lightning_steer.lm.tokens import TokenBatch, TokenRow, batches
from lightning_steer.metrics.drift import TextDrift, next_token_kl


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
        with decoder.steered(batch, edits, positions.mask(batch.index, batch.prompt), copies):
            steered = decoder.states(batch)
        steered = steered.unflatten(0, (-1, len(batch_rows))).expand(copies, -1, -1, -1)
        r, t = (_steered_tokens(positions, batch).cumsum(1).gt(0) & (batch.index >= 0)).nonzero().T
        next_tokens = torch.cat([batch.ids[:, 1:], batch.ids[:, :1]], 1)[r, t]
        has_next = torch.cat([batch.index[:, 1:] > 0, batch.index[:, :1] < 0], 1)[r, t].cpu()
        example = torch.tensor([row.example for row in batch_rows])[r.cpu()]
        tokens.index_add_(0, example, has_next.float())
        base = decoder.logits(plain[r, t]).log_softmax(-1)
        for i, h in enumerate([plain, *steered]):
            steered_logp = base if i == 0 else decoder.logits(h[r, t]).log_softmax(-1)
            token_logp = steered_logp.gather(1, next_tokens.unsqueeze(1)).squeeze(1).cpu().double()
            logp[i].index_add_(0, example, torch.where(has_next, token_logp, 0.0))
            if i:
                # NaN in kl marks a place without a token, so an undefined divergence is stored as infinite.
                values = next_token_kl(base, steered_logp).nan_to_num(nan=torch.inf, posinf=torch.inf)
                kl[i - 1, example, t.cpu()] = values.cpu().double()
    return TextDrift(kl, logp[0], logp[1:], tokens)


def _steered_tokens(positions: Positions, batch: TokenBatch) -> Tensor:
    mask = positions.mask(batch.index, batch.prompt)
    return (batch.index >= 0) if mask is None else mask & (batch.index >= 0)
