"""Affine map by ridge regression of each pair's difference on its negative row.

``f(h) = h + mean(D) + (h - mu-) B`` with ``D = h+ - h-`` pair by pair and
``B = (X'X/n + penalty * s * I)^(-1) X'D/n``, X the centred negative rows, s their mean variance;
``h' = h + strength * (f(h) - h)``. An infinite penalty gives the mean difference. Ours, after the affine maps of
Krasheninnikov & Krueger 2024; undefined without pairs, where the regression target would be noise.
"""

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class Ridge(SteeringMethod):
    """Affine map fitted to pairs. Strength: share of the way (1 = all of it).

    Args:
        penalty: ridge penalty, in units of the rows' mean variance; larger is closer to the mean difference.
    """

    def __init__(self, width: int, penalty: float = 0.1) -> None:
        super().__init__(width)
        if penalty <= 0:
            raise UserError(f"penalty must be positive, not {penalty}")
        self.penalty = penalty
        self.register_buffer("matrix", torch.zeros(width, width))
        self.register_buffer("source", torch.zeros(width))
        self.register_buffer("vector", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        if not seen.paired:
            raise UserError("Ridge needs pairs that differ in nothing but the target; set data.paired to true")
        self.source, self.vector = seen.negative.mean(-2), (seen.positive - seen.negative).mean(-2)
        x = seen.negative - self.source.unsqueeze(-2)
        gram = x.mT @ x / x.shape[-2]
        ridge = self.penalty * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None].clamp_min(1e-12)
        cross = x.mT @ (seen.positive - seen.negative - self.vector.unsqueeze(-2)) / x.shape[-2]
        self.matrix = torch.linalg.solve(gram + ridge * torch.eye(self.width).to(gram), cross)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * (self.vector.unsqueeze(-2) + (h.float() - self.source.unsqueeze(-2)) @ self.matrix)
