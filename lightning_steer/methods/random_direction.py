"""Random direction: the control for the effect of any shift of the same length.

``v = |mean difference| * u``, u uniform on the unit sphere,  ``h' = h + strength * v``.
"""

import torch
from torch import Tensor

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class RandomDirection(SteeringMethod):
    """Add a random vector as long as the mean difference. Strength: multiples of that length.

    Args:
        seed: draws another direction; a single draw says little, report many.
    """

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__(width)
        self.seed = seed
        self.register_buffer("vector", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        length = (seen.positive.mean(-2) - seen.negative.mean(-2)).norm(dim=-1, keepdim=True)
        generator = torch.Generator().manual_seed(self.seed)
        u = torch.randn(*length.shape[:-1], self.width, dtype=length.dtype, generator=generator).to(length.device)
        self.vector = length * u / u.norm(dim=-1, keepdim=True)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * self.vector.unsqueeze(-2)
