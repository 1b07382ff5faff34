"""LEACE, then shift: make the concept linearly unreadable with the least change, then move to the positive mean.

``f(h) = h - W^+ P W (h - mu) + (mu_wanted - mu)`` with ``W = Sigma^(-1/2)`` and P the orthogonal projection onto the
columns of ``W Sigma_hz``;  ``h' = h + strength * (f(h) - h)``. After f no linear map of h tells the classes apart
(Belrose et al. 2023, arXiv 2306.03819, theorem 4.3) and all of them have the positive mean. The shift is ours.
"""

import torch
from torch import Tensor

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class LEACE(SteeringMethod):
    """Erase the concept, then shift to the positive mean. Strength: share of that way (1 = all of it).

    Args:
        by_value: erase what tells all values apart (rank K - 1), not only positives from negatives (rank 1).
    """

    def __init__(self, width: int, by_value: bool = False) -> None:
        super().__init__(width)
        self.by_value = by_value
        self.register_buffer("erased", torch.zeros(width, width))  # rows act from the right: (h - mu) @ erased
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("target", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        self.mean, self.target = seen.h.mean(-2), seen.positive.mean(-2)
        z = seen.concept(self.by_value)
        h, z = seen.h - self.mean.unsqueeze(-2), z - z.mean(-2, keepdim=True)
        variance, axes = torch.linalg.eigh(h.mT @ h / h.shape[-2])
        scale = variance.clamp_min(0).sqrt()
        varies = scale > 1e-6 * scale.amax(-1, keepdim=True)  # directions without variance are left alone
        inverse = torch.where(varies, 1 / scale.where(varies, torch.ones_like(scale)), torch.zeros_like(scale))
        whiten, unwhiten = axes * inverse.unsqueeze(-2) @ axes.mT, axes * (scale * varies).unsqueeze(-2) @ axes.mT
        basis, size, _ = torch.linalg.svd(whiten @ (h.mT @ z / h.shape[-2]), full_matrices=False)
        basis = basis * (size > 1e-6 * size.amax(-1, keepdim=True).clamp_min(1e-12)).unsqueeze(-2)
        self.erased = whiten @ basis @ basis.mT @ unwhiten

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        erased = (h.float() - self.mean.unsqueeze(-2)) @ self.erased
        return strength * ((self.target - self.mean).unsqueeze(-2) - erased)
