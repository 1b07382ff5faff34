"""Additive error probe: the same shift against the error probe's direction for every row.

A linear probe ``w.h + b`` of logit(error) is fitted here; ``h' = h - strength * w / |w|^2``, which lowers the predicted
logit by ``strength``. A baseline of Hedström et al. 2025 (MERA), arXiv 2510.13290; it changes every row.
"""

import torch
from torch import Tensor

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.probes import fit_error_probe
from lightning_steer.records import Activations


class ProbeAdditive(SteeringMethod):
    """Subtract the error probe's direction. Strength: by how much the predicted logit of the error falls.

    Args:
        penalty: of the probe, on standardised features; 0 for least squares.
        sparse: lasso, else ridge.
    """

    classes = False

    def __init__(self, width: int, penalty: float = 0.01, sparse: bool = True) -> None:
        super().__init__(width)
        self.penalty, self.sparse = penalty, sparse
        self.register_buffer("vector", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        w = fit_error_probe(seen.h, seen.error, self.penalty, self.sparse).weight
        size = w.square().sum(-1, keepdim=True)
        self.vector = torch.where(size > 0, -w / size.where(size > 0, torch.ones_like(size)), 0.0)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * self.vector.unsqueeze(-2)
