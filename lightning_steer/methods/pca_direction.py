"""PCA direction: the axis along which the two rows of a pair differ most.

``v = sign(u'd) |d| u``, d the mean difference, u the first principal component of the pairs' differences D;
``h' = h + strength * v``. Sources: representation engineering (RepE), Zou et al. 2023, arXiv 2310.01405, and repeng
(Vogel 2024). RepE gives each difference a random sign: u is the first axis of ``D'D``, mean included, as with repeng's
``pca_center``. repeng's default ``pca_diff`` centres D and so takes out the mean difference: u is how pairs differ from
each other. Rows without pairs: the expectation of both over all pairs. Ours: v is as long as the mean difference, and
the class means set its sign; in both sources it has length 1, and most pairs set the sign.
"""

import torch
from torch import Tensor

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class PCADirection(SteeringMethod):
    """Add the first axis of paired differences, as long as the mean difference. Strength: multiples of that length.

    Args:
        centred: take the mean out of the differences first, as repeng does by default; one pair then has no axis, and
            nothing is added.
    """

    def __init__(self, width: int, centred: bool = False) -> None:
        super().__init__(width)
        self.centred = centred
        self.register_buffer("vector", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        mean = (seen.positive.mean(-2) - seen.negative.mean(-2)).unsqueeze(-2)
        if seen.paired:
            parts = [seen.positive - seen.negative - mean]
        else:  # the variance of a difference of two rows that have nothing to do with each other
            parts = [rows - rows.mean(-2, keepdim=True) for rows in (seen.positive, seen.negative)]
        parts = [part / part.shape[-2] ** 0.5 for part in parts]
        differences = torch.cat(parts if self.centred else [*parts, mean], -2)
        _, size, axes = torch.linalg.svd(differences, full_matrices=False)
        axis = axes[..., :1, :] * (size[..., :1, None] > 0)
        sign = torch.where((axis * mean).sum(-1, keepdim=True) < 0, -1.0, 1.0)
        self.vector = (sign * mean.norm(dim=-1, keepdim=True) * axis).squeeze(-2)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * self.vector.unsqueeze(-2)
