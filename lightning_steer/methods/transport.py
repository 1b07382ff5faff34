"""Gaussian transport: the cheapest map that gives negative rows the mean and covariance of the positive ones.

``f(h) = mu+ + A (h - mu-)``, ``A = S-^(-1/2) (S-^(1/2) S+ S-^(1/2))^(1/2) S-^(-1/2)``; ``h' = h + strength (f - h)``.
Source: Singh et al. 2024 (MiMiC), arXiv 2402.09631, equation 5.
"""

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


def covariance(h: Tensor, shrinkage: float) -> Tensor:
    """Return ``[*, d, d]`` covariance of rows ``[*, n, d]``, shrunk towards a multiple of the identity."""
    h = h - h.mean(-2, keepdim=True)
    sigma = h.mT @ h / h.shape[-2]
    scaled = sigma.diagonal(0, -2, -1).mean(-1)[..., None, None] * torch.eye(h.shape[-1]).to(h)
    return torch.lerp(sigma, scaled, shrinkage)


def roots(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return the square root and its pseudo-inverse; directions without variance stay at 0."""
    values, axes = torch.linalg.eigh(sigma)
    size = values.clamp_min(0).sqrt().unsqueeze(-2)
    inverse = (1 / size).where(size > 1e-6 * size.amax(-1, keepdim=True), 0.0)
    return axes * size @ axes.mT, axes * inverse @ axes.mT


class GaussianTransport(SteeringMethod):
    """Optimal transport between two normal distributions. Strength: share of the way (1 = all of it).

    Args:
        shrinkage: share of a multiple of the identity mixed into both covariances; 0 with many more rows than d.
    """

    def __init__(self, width: int, shrinkage: float = 0.1) -> None:
        super().__init__(width)
        if not 0 <= shrinkage <= 1:
            raise UserError(f"shrinkage lies between 0 and 1, not {shrinkage}")
        self.shrinkage = shrinkage
        self.register_buffer("matrix", torch.zeros(width, width))
        self.register_buffer("offset", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        root, inverse = roots(covariance(seen.negative, self.shrinkage))
        self.matrix = inverse @ roots(root @ covariance(seen.positive, self.shrinkage) @ root)[0] @ inverse
        self.offset = seen.positive.mean(-2) - (seen.negative.mean(-2, keepdim=True) @ self.matrix).squeeze(-2)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * (h.float() @ self.matrix + self.offset.unsqueeze(-2) - h.float())
