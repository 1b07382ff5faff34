"""Dual steering: raise a linear probe with the least KL divergence of the network's output.

``v = c (F + s tr(F)/d I)^-1 w``: F is the Fisher information of the output about a shift of the rows, w a linear probe,
and c makes ``w.v = w.(mean difference)``;  ``h' = h + strength * v``. Of all shifts with that w.v it has the least
``v'Fv / 2``, the mean KL divergence to second order. Source: Park et al. 2026, arXiv 2602.15293: there h is the state
that the vocabulary head reads, F the covariance of its rows under each state's own softmax, and many small steps follow
F as it changes. Ours: F at any site, through the rest of the network, its mean over the rows, one step; and the probe.
"""

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


def shrunk(matrix: Tensor, share: float) -> Tensor:
    """Return ``[*, d, d]`` with a share of the mean of its diagonal added to the diagonal."""
    mean = matrix.diagonal(0, -2, -1).mean(-1).clamp_min(1e-30)
    return matrix + share * mean[..., None, None] * torch.eye(matrix.shape[-1]).to(matrix)


class DualSteering(SteeringMethod):
    """Raise a probe at the least cost to the output. Strength: multiples of what raises it as the mean difference does.

    Args:
        shrinkage: what is added to the Fisher information, as a share of its mean diagonal; very large, and the shift
            follows the probe's own direction.
    """

    needs_sensitivity = True

    def __init__(self, width: int, shrinkage: float = 0.1) -> None:
        super().__init__(width)
        if shrinkage <= 0:
            raise UserError(f"shrinkage is above 0, not {shrinkage}: rows say nothing of some directions")
        self.shrinkage = shrinkage
        self.register_buffer("vector", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        if seen.sensitivity is None:
            raise UserError("dual steering needs the output's gradients by the rows: give Activations a sensitivity")
        g = seen.sensitivity.to(seen.h).flatten(-3, -2)
        fisher = shrunk(g.mT @ g / seen.h.shape[-2], self.shrinkage)
        difference = (seen.positive.mean(-2) - seen.negative.mean(-2)).unsqueeze(-1)
        within = torch.cat([part - part.mean(-2, keepdim=True) for part in (seen.positive, seen.negative)], -2)
        probe = torch.linalg.solve(shrunk(within.mT @ within / seen.h.shape[-2], 0.1), difference)  # discriminant
        along = torch.linalg.solve(fisher, probe)
        raised = (probe * along).sum(-2, keepdim=True).clamp_min(1e-30)
        self.vector = (along * (probe * difference).sum(-2, keepdim=True) / raised).squeeze(-1)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * self.vector.unsqueeze(-2)
