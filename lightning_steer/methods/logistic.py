"""Logistic direction: the normal of the plane that best separates positive from negative rows.

``v = |mean difference| * w / |w|`` with w from L2-regularised logistic regression,  ``h' = h + strength * v``.
The name is ours, after the probe directions of Li et al. 2023 (ITI), arXiv 2306.03341.
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class Logistic(SteeringMethod):
    """Add the logistic-regression direction, as long as the mean difference. Strength: multiples of that length.

    Args:
        inverse_penalty: scikit-learn's ``C``, for rows scaled to unit root mean square.
    """

    def __init__(self, width: int, inverse_penalty: float = 1.0) -> None:
        super().__init__(width)
        self.inverse_penalty = inverse_penalty
        self.register_buffer("vector", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        length = (seen.positive.mean(-2) - seen.negative.mean(-2)).norm(dim=-1, keepdim=True)
        positive = (seen.error < 0.5).cpu().numpy()
        problems = seen.h.reshape(-1, *seen.h.shape[-2:]).cpu().numpy()
        normals = torch.from_numpy(np.stack([self._normal(rows, positive) for rows in problems]))
        self.vector = length * normals.reshape(*length.shape[:-1], self.width).to(length.device)

    def _normal(self, rows: np.ndarray, positive: np.ndarray) -> np.ndarray:
        scaled = rows / np.sqrt((rows**2).mean())
        weight = LogisticRegression(C=self.inverse_penalty, max_iter=10_000).fit(scaled, positive).coef_[0]
        return weight / np.linalg.norm(weight)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * self.vector.unsqueeze(-2)
