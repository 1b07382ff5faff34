"""MERA on the features of a sparse autoencoder, steering along its decoder's directions.

``z = encode(h)``, a probe ``w.z + b`` of logit(error), ``e = w.z + b - logit(alpha)``, ``u = cov(z) w``; where e > 0,
``h' = h - e (u W_dec) / (w.u)``: exact in z while no feature crosses its threshold; encode(h') may differ.
Probes on encodings are from Hedström et al. 2025, arXiv 2510.13290; the steering is ours.
"""

import torch
from torch import Tensor

from lightning_steer import probes
from lightning_steer.methods.base import THRESHOLDS, SteeringMethod
from lightning_steer.records import Activations


class SAEMERA(SteeringMethod):
    """Lower the error predicted from sparse features to a threshold. Strength: the threshold; from 1 on none is above.

    Args:
        folder: a SAELens folder; null trains a small autoencoder on the rows that the method is fitted to.
        features: of that small one, in multiples of the width.
        penalty: of the probe, a lasso on standardised features; 0 for least squares.
    """

    identity_strength = 1.0
    strength_range = (0.0, 1.0)
    default_strengths = THRESHOLDS

    def __init__(self, width: int, folder: str | None = None, features: int = 4, penalty: float = 0.01) -> None:
        super().__init__(width)
        self.folder, self.features, self.penalty = folder, features, penalty
        sae = probes.read_sparse_autoencoder(folder, width) if folder else probes.no_features(width, features * width)
        for name, tensor in sae._asdict().items():
            self.register_buffer(name, tensor)
        for name, shape in (("weight", sae.b_enc.shape), ("intercept", ()), ("along", (width,))):
            self.register_buffer(name, torch.zeros(shape))

    def estimate(self, seen: Activations) -> None:
        if not self.folder:
            for name, x in probes.train_sparse_autoencoder(seen.h, self.features * self.width)._asdict().items():
                setattr(self, name, x)
        z = probes.encode(self, seen.h).double()
        z = z * ((z > 0).sum(-2, keepdim=True) >= probes.LEAST)  # a rarer feature would get a weight of thousands
        self.weight, self.intercept = w, _ = probes.fit_error_probe(z, seen.error, self.penalty, True)
        x = z - z.mean(-2, keepdim=True)
        u, lift = x.mT @ (x @ w.unsqueeze(-1)), (x @ w.unsqueeze(-1)).square().sum(-2, keepdim=True)
        u = torch.where(lift > 0, u / lift.where(lift > 0, torch.ones_like(lift)), 0.0)
        self.along = (u.mT @ self.get_buffer("W_dec").double()).squeeze(-2)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        threshold = torch.as_tensor(strength, device=h.device).float().clamp(1e-6, 1.0).logit()
        excess = probes.encode(self, h) @ self.weight.unsqueeze(-1) + self.intercept[..., None, None] - threshold
        return torch.where(excess > 0, -excess * self.along.unsqueeze(-2), 0.0)
