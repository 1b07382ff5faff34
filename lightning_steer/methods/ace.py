"""ACE, affine concept editing: replace the component along the concept by that of the positive rows.

``f(h) = h - Q Q' (h - mu_wanted)`` with Q an orthonormal basis of the columns of ``Sigma_hz`` (rank 1: the mean
difference);  ``h' = h + strength * (f(h) - h)``. Source: Marshall, Scherlis & Belrose 2024, arXiv 2411.09003; with
``by_value`` (ours) Q spans the mean differences of all values.
"""

import torch
from torch import Tensor

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class ACE(SteeringMethod):
    """Replace the component along the concept by the positive class's. Strength: share of that way (1 = all of it).

    Args:
        by_value: replace what tells all values apart (rank K - 1), not only positives from negatives (rank 1).
    """

    def __init__(self, width: int, by_value: bool = False) -> None:
        super().__init__(width)
        self.by_value = by_value
        self.register_buffer("projection", torch.zeros(width, width))
        self.register_buffer("target", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        self.target = seen.positive.mean(-2)
        z = seen.concept(self.by_value)
        cross = (seen.h - seen.h.mean(-2, keepdim=True)).mT @ (z - z.mean(-2, keepdim=True)) / z.shape[-2]
        basis, size, _ = torch.linalg.svd(cross, full_matrices=False)
        basis = basis * (size > 1e-6 * size.amax(-1, keepdim=True).clamp_min(1e-12)).unsqueeze(-2)
        self.projection = basis @ basis.mT

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * ((self.target.unsqueeze(-2) - h.float()) @ self.projection)
