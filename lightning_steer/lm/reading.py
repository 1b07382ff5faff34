"""Read activations: the mean over each row's tokens at the read positions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.lm.positions import Positions
from lightning_steer.lm.tokens import TokenBatch, TokenRow


def add_means(
    means: dict[str, Tensor],
    captured: dict[str, Tensor],
    rows: Sequence[TokenRow],
    positions: Positions,
    batch: TokenBatch,
    real: Tensor,
) -> None:
    """Write the mean over each row's tokens to the place of its example.

    Args:
        means: ``{site: [B, d]}``, filled in.
        captured: ``{site: [R, T, d]}`` activations of a batch.
        rows: the rows of the batch.
        positions: which tokens are read.
        batch: the same rows, padded.
        real: ``[R, T]`` bool, the tokens that may be read.

    Raises:
        ValueError: the positions pick no token of a row.
    """
    mask = positions.mask(batch.index, batch.prompt)
    mask = real if mask is None else mask & real
    if not mask.any(1).all():
        raise UserError(f"{type(positions).__name__} picks no token to read in example {rows[0].example}")
    examples = torch.tensor([row.example for row in rows], device=mask.device)
    for site, h in captured.items():
        weight = mask / mask.sum(1, keepdim=True)  # in float32: in half precision 1/n would be off by up to .4 %
        mean = weight.unsqueeze(1).float() @ h.reshape(*real.shape, -1).float().masked_fill(~mask.unsqueeze(-1), 0)
        means[site] = means[site].index_copy(0, examples.to(h.device), mean.squeeze(1).to(h.dtype))
