"""Contrastive on errors: from the rows with the largest errors towards those with the smallest.

``v = mean(h of the k smallest errors) - mean(h of the k largest)``, ``h' = h + strength * v``. A baseline of Hedström
et al. 2025 (MERA), arXiv 2510.13290, there with k = 50, 100 and 200.
"""

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class Contrastive(SteeringMethod):
    """Add the difference of the means of the least and the most mistaken rows. Strength: multiples of it.

    Args:
        k: rows in either mean; at most half of all.
    """

    def __init__(self, width: int, k: int = 100) -> None:
        super().__init__(width)
        if k < 1:
            raise UserError(f"k is the number of rows in a mean and at least 1, not {k}")
        self.k = k
        self.register_buffer("vector", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        order, k = seen.error.to(seen.h.device).argsort(stable=True), min(self.k, len(seen.error) // 2)
        self.vector = seen.h[..., order[:k], :].mean(-2) - seen.h[..., order[len(order) - k :], :].mean(-2)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * self.vector.unsqueeze(-2)
