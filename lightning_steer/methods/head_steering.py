"""Head steering (inference-time intervention, ITI): shift the attention heads that tell the classes apart.

``h_k' = h_k + strength * s_k u_k`` for the ``top`` heads k by a probe's accuracy; u_k the unit mean difference of the
head's output, s_k the standard deviation along it. Source: Li et al. 2023, arXiv 2306.03341, equation 2. There heads
are ranked over all layers, by a logistic probe on a fifth of the rows; here within a layer, by ridge, in two folds.
"""

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


def accuracy(x: Tensor, is_positive: Tensor) -> Tensor:
    """Return the accuracy ``[*]`` of a ridge probe of rows ``[*, n, d]``, each half predicted from the other one."""
    place = torch.where(is_positive, is_positive.cumsum(0), (~is_positive).cumsum(0))  # keeps pairs in one half
    sign = 2.0 * is_positive.to(x).unsqueeze(-1) - 1
    right = x.new_zeros(x.shape[:-2])
    for half in (place % 2 == 0, place % 2 == 1):
        count = half.sum().clamp_min(1)
        mean, offset = x[..., half, :].sum(-2, keepdim=True) / count, sign[half].sum() / count
        seen = x[..., half, :] - mean
        gram = seen.mT @ seen
        penalty = 0.1 * gram.diagonal(0, -2, -1).mean(-1).clamp_min(1e-12)  # as a share of the mean variance
        weight = torch.linalg.solve(
            gram + penalty[..., None, None] * torch.eye(x.shape[-1]).to(x), seen.mT @ sign[half]
        )
        scores = (x[..., ~half, :] - mean) @ weight + offset
        right += ((scores > 0).squeeze(-1) == is_positive[~half]).sum(-1)
    return right / len(is_positive)


class HeadSteering(SteeringMethod):
    """Shift the most telling attention heads, at ``part: heads``. Strength: standard deviations of each chosen head.

    The network says how many heads a row consists of. At any other part of a block the whole row counts as one head.

    Args:
        top: heads that are shifted in a layer; all, if it has fewer.
    """

    def __init__(self, width: int, top: int = 4) -> None:
        super().__init__(width)
        if top < 1:
            raise UserError(f"top is the number of heads that are shifted and at least 1, not {top}")
        self.top = top
        self.register_buffer("vector", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        if self.width % seen.heads:
            raise UserError(f"{seen.heads} heads do not divide a row of width {self.width}")
        x = seen.h.unflatten(-1, (seen.heads, -1)).transpose(-2, -3)  # [*, heads, n, d / heads]
        is_positive = seen.error.to(x.device) < 0.5
        difference = x[..., is_positive, :].mean(-2) - x[..., ~is_positive, :].mean(-2)
        unit = difference / difference.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        spread = (x @ unit.unsqueeze(-1)).std(-2, correction=0)  # [*, heads, 1]
        order = accuracy(x, is_positive).argsort(dim=-1, descending=True, stable=True)
        chosen = torch.zeros_like(spread).squeeze(-1).scatter(-1, order[..., : self.top], 1.0)
        self.vector = (chosen.unsqueeze(-1) * spread * unit).flatten(-2)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * self.vector.unsqueeze(-2)
