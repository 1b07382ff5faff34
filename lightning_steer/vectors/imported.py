"""A vector from another tool, without a record of how it was fitted: ``h' = h + strength * v``."""

import torch
from torch import Tensor, nn

from lightning_steer.strength import readable


class ImportedVector(nn.Module):
    """Add a given vector. Strength: multiples of the vector as it came."""

    vector: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("vector", torch.zeros(width))

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        """Return what is added to ``h [*, d]``."""
        return strength * self.vector

    @readable
    def forward(self, h: Tensor, strength: Tensor | float = 1.0) -> Tensor:
        """Steer ``h [*, d]``; a tensor of strengths holds one value per row, as for fitted methods."""
        if isinstance(strength, Tensor) and strength.dim():
            strength = strength.reshape(*strength.shape, *[1] * (h.dim() - strength.dim()))
        return h + self.shift(h, strength).to(h.dtype)
