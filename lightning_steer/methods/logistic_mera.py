"""MERA on a logistic probe: lower the predicted chance of a wrong answer to a threshold.

Logistic regression of "the error is one half or more" on the rows gives ``P(wrong) = sigmoid(w.h + b)``; with
``e = w.h + b - logit(alpha)``, ``h' = h - e w / |w|^2`` where e > 0. After Hedström et al. 2025, arXiv 2510.13290,
whose code moves the other way. The solver is scikit-learn's.
"""

import torch
from torch import Tensor

from lightning_steer.methods.base import THRESHOLDS, SteeringMethod
from lightning_steer.probes import logistic
from lightning_steer.records import Activations


class LogisticMERA(SteeringMethod):
    """Lower the predicted chance of a mistake to a threshold. Strength: the threshold; from 1 on no row is above it.

    Args:
        penalty: of the probe, on standardised features.
        sparse: penalise the L1 norm of the weights, else the squared L2 norm.
    """

    identity_strength = 1.0
    strength_range = (0.0, 1.0)
    default_strengths = THRESHOLDS

    def __init__(self, width: int, penalty: float = 0.01, sparse: bool = True) -> None:
        super().__init__(width)
        self.penalty, self.sparse = penalty, sparse
        self.register_buffer("weight", torch.zeros(width))
        self.register_buffer("intercept", torch.zeros(()))
        self.register_buffer("along", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        fit = logistic(seen.h, seen.error >= 0.5, [self.penalty], self.sparse)
        self.weight, self.intercept = fit.weight[..., 0, :], fit.intercept[..., 0]
        size = self.weight.square().sum(-1, keepdim=True)
        self.along = torch.where(size > 0, self.weight / size.where(size > 0, torch.ones_like(size)), 0.0)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        threshold = torch.as_tensor(strength, device=h.device).float().clamp(1e-6, 1.0).logit()
        excess = h.float() @ self.weight.unsqueeze(-1) + self.intercept[..., None, None] - threshold
        return torch.where(excess > 0, -excess * self.along.unsqueeze(-2), 0.0)
