"""Means under re-weightings of rows."""

import torch
from torch import Tensor


def weighted_mean(rows: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the float64 mean of ``rows [n, *]``: ``[*]``, or ``[R, *]`` under ``weights [R, n]``; NaN if all are 0."""
    if weights is None:
        return rows.double().mean(0)
    total = weights.sum(-1).reshape((*weights.shape[:-1], *[1] * (rows.dim() - 1)))
    return torch.tensordot(weights, rows.double(), 1) / total
