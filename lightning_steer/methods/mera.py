"""MERA: the smallest shift that lowers the predicted error to a threshold; rows below it stay unchanged.

A linear probe ``w.h + b`` of logit(error) is fitted here; ``e = w.h + b - logit(alpha)``, ``h' = h - e v / (w.v)``
where e > 0, so that ``w.h' + b = logit(alpha)``. The smallest Euclidean shift has ``v = w`` (Hedström et al. 2025,
arXiv 2510.13290); the smallest in the metric of the rows' covariance has ``v = Sigma w`` (ours), the pattern of the
filter w (Haufe et al. 2014, NeuroImage 87:96): w predicts, but lies along directions of low variance.
"""

import torch
from torch import Tensor

from lightning_steer.methods.base import THRESHOLDS, SteeringMethod
from lightning_steer.probes import fit_error_probe
from lightning_steer.records import Activations


class MERA(SteeringMethod):
    """Lower the predicted error to a threshold. Strength: the threshold alpha; from 1 on no row is above it.

    Args:
        penalty: of the probe, on standardised features; 0 for least squares.
        sparse: lasso, else ridge.
        mahalanobis: smallest shift in the metric of the activations' covariance, else the smallest Euclidean one.
    """

    identity_strength, classes = 1.0, False
    strength_range = (0.0, 1.0)
    default_strengths = THRESHOLDS

    def __init__(self, width: int, penalty: float = 0.01, sparse: bool = True, mahalanobis: bool = False) -> None:
        super().__init__(width)
        self.penalty, self.sparse, self.mahalanobis = penalty, sparse, mahalanobis
        self.register_buffer("weight", torch.zeros(width))
        self.register_buffer("intercept", torch.zeros(()))
        self.register_buffer("along", torch.zeros(width))  # v / (w.v), or 0 (no edit) where all weights are 0

    def estimate(self, seen: Activations) -> None:
        self.weight, self.intercept = w, _ = fit_error_probe(seen.h, seen.error, self.penalty, self.sparse)
        x = seen.h - seen.h.mean(-2, keepdim=True)
        v = (x.mT @ (x @ w.unsqueeze(-1))).squeeze(-1) if self.mahalanobis else w
        lift = (w * v).sum(-1, keepdim=True)
        self.along = torch.where(lift > 0, v / lift.where(lift > 0, torch.ones_like(lift)), 0.0)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        threshold = torch.as_tensor(strength, device=h.device).float().clamp(1e-6, 1.0).logit()
        excess = h.float() @ self.weight.unsqueeze(-1) + self.intercept[..., None, None] - threshold
        return torch.where(excess > 0, -excess * self.along.unsqueeze(-2), 0.0)
