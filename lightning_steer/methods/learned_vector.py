"""Learned vector: one vector trained through the network's output. ``h' = h + strength * v``.

v starts at zero and is optimised at strength 1. Source: Subramani et al. 2022, arXiv 2205.05124.
"""

import torch
from torch import Tensor, nn

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class LearnedVector(SteeringMethod):
    """Add a vector trained through the output. Strength: multiples of the trained vector."""

    trained, classes = True, False

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.vector = nn.Parameter(torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        self.vector = nn.Parameter(seen.h.new_zeros(*seen.h.shape[:-2], self.width))

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * self.vector.unsqueeze(-2)
