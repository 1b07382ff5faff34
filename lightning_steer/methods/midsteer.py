"""MidSteer: the affine map of least change after which one concept lies where another one lay.

``f(h) = h + W^+ (u2 - u1) u1' W (h - mu) / |u1|^2`` with ``W = Sigma^(-1/2)`` and ``u_i = W Cov(h, z_i)``;
``h' = h + strength * (f(h) - h)``. Of all affine maps with ``Cov(f(h), z1) = Cov(h, z2)`` and the mean kept it has the
least mean square change. Source: Gaintseva et al. 2026, arXiv 2605.05220 (theorem, form of A and b); z1 and z2 from
positive and negative rows are ours. Here ``z1 = 1`` on the rows to be changed and ``z2 = 1`` on positive ones. If all
rows but the positive are changed, ``u2 = -u1``: their LEACE-Switch, which is LEACE's removal at strength 2.
"""

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class MidSteer(SteeringMethod):
    """Move a concept to where the positive rows lie. Strength: share of the way (1 = all of it).

    The map exchanges: with two classes, positive rows are moved to where the negative ones lay.

    Args:
        source: the value (of the first attribute) whose rows are changed; null for all negative rows.
        remove: remove the concept, as LEACE does, without its shift to the positive mean.
    """

    def __init__(self, width: int, source: int | None = None, remove: bool = False) -> None:
        super().__init__(width)
        self.source, self.remove = source, remove
        for name in ("read", "write", "mean"):
            self.register_buffer(name, torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        self.mean = seen.h.mean(-2)
        h = seen.h - self.mean.unsqueeze(-2)
        z2 = seen.concept(False)
        z1 = 1 - z2 if self.source is None else (seen.value[..., :1] == self.source).to(h)
        if not bool(((z1 > 0).any(-2) & (z1 < 1).any(-2)).all()):
            raise UserError(
                f"no row, or every row, has value {self.source}: name as source a value of the negative rows"
            )
        variance, axes = torch.linalg.eigh(h.mT @ h / h.shape[-2])
        scale = variance.clamp_min(0).sqrt().unsqueeze(-2)
        varies = scale > 1e-6 * scale.amax(-1, keepdim=True)  # directions without variance are left alone
        inverse = torch.where(varies, 1 / scale.where(varies, torch.ones_like(scale)), torch.zeros_like(scale))
        u1, u2 = (inverse.mT * (axes.mT @ (h.mT @ (z - z.mean(-2, keepdim=True)))) for z in (z1, z2))
        u2 = torch.zeros_like(u1) if self.remove else u2
        self.read = (axes @ (inverse.mT * u1) / u1.square().sum(-2, keepdim=True).clamp_min(1e-30)).squeeze(-1)
        self.write = (axes @ (scale.mT * varies.mT * (u2 - u1))).squeeze(-1)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * ((h.float() - self.mean.unsqueeze(-2)) @ self.read.unsqueeze(-1)) * self.write.unsqueeze(-2)
