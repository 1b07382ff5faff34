"""MERA along a contrastive direction: the error probe sets the step size, the contrast its direction.

``v = mean(h of the k smallest errors) - mean(h of the k largest)`` and, with a probe ``w.h + b`` of logit(error) and
``e = w.h + b - logit(alpha)``, ``h' = h - e v / (w.v)`` where e > 0: then ``w.h' + b = logit(alpha)``. If v does not
lower the predicted error (``w.v >= 0``) no row is edited. After Hedström et al. 2025, arXiv 2510.13290, whose code
moves the other way and keeps the last k only.
"""

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.methods.base import THRESHOLDS, SteeringMethod
from lightning_steer.probes import fit_error_probe
from lightning_steer.records import Activations


class ContrastiveMERA(SteeringMethod):
    """Lower the predicted error to a threshold along a contrast. Strength: the threshold alpha; none is above 1.

    Args:
        k: rows with the smallest, and with the largest errors, in either mean; at most half of all.
        penalty: of the probe, on standardised features; 0 for least squares.
        sparse: lasso, else ridge.
    """

    identity_strength = 1.0
    strength_range = (0.0, 1.0)
    default_strengths = THRESHOLDS

    def __init__(self, width: int, k: int = 100, penalty: float = 0.01, sparse: bool = True) -> None:
        super().__init__(width)
        if k < 1:
            raise UserError(f"k is the number of rows in a mean and at least 1, not {k}")
        self.k, self.penalty, self.sparse = k, penalty, sparse
        self.register_buffer("weight", torch.zeros(width))
        self.register_buffer("intercept", torch.zeros(()))
        self.register_buffer("along", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        self.weight, self.intercept = w, _ = fit_error_probe(seen.h, seen.error, self.penalty, self.sparse)
        order, k = seen.error.to(seen.h.device).argsort(stable=True), min(self.k, len(seen.error) // 2)
        v = seen.h[..., order[:k], :].mean(-2) - seen.h[..., order[len(order) - k :], :].mean(-2)
        lift = (w * v).sum(-1, keepdim=True)
        self.along = torch.where(lift < 0, v / lift.where(lift < 0, torch.ones_like(lift)), 0.0)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        threshold = torch.as_tensor(strength, device=h.device).float().clamp(1e-6, 1.0).logit()
        excess = h.float() @ self.weight.unsqueeze(-1) + self.intercept[..., None, None] - threshold
        return torch.where(excess > 0, -excess * self.along.unsqueeze(-2), 0.0)
