"""Mean difference (contrastive activation addition, CAA).

``v = mean(h positive) - mean(h negative)``,  ``h' = h + strength * v``;  at strength 1 the mean of the negative rows
moves to the mean of the positive ones. Source: Rimsky et al. 2024, arXiv 2312.06681; Krasheninnikov & Krueger 2024.
"""

import torch
from torch import Tensor

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class MeanDifference(SteeringMethod):
    """Add the difference of the class means. Strength: multiples of that difference."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_buffer("vector", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        self.vector = seen.positive.mean(-2) - seen.negative.mean(-2)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * self.vector.unsqueeze(-2)
