"""Clamp: set the component along the mean difference to one value, the same for every row.

``h' = h + min(|strength|, 1) (c - r'h) r``, r the unit mean difference. Up to strength 1, c is the component of the
positive mean: 1 sets it in every row. Beyond, c is larger by the length of the mean difference for each 1. So the mean
of the negative rows goes where MeanDifference puts it at the same strength, and from 1 on all rows have its component.
Negative strengths do the same towards the negative mean. Or ``value`` is c at 1 and -1; with 0 this is Ablation.
Source: the clamped features of Templeton et al. 2024, "Scaling Monosemanticity", set to multiples of their largest
activation. A feature is 0 where it is absent; a component along a mean difference is not, hence the class means (ours).
"""

import torch
from torch import Tensor

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class Clamp(SteeringMethod):
    """Set the component along the mean difference. Strength: multiples of that difference (1 sets the positive mean's).

    Args:
        value: component that strengths 1 and -1 set, in the activations' own unit; null for that of the class means.
    """

    def __init__(self, width: int, value: float | None = None) -> None:
        super().__init__(width)
        self.value = value
        self.register_buffer("direction", torch.zeros(width))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("length", torch.zeros(()))

    def estimate(self, seen: Activations) -> None:
        positive, negative = seen.positive.mean(-2), seen.negative.mean(-2)
        self.direction = torch.nn.functional.normalize(positive - negative, dim=-1)
        self.high, self.low = ((self.direction * mean).sum(-1) for mean in (positive, negative))
        self.length = self.high - self.low
        if self.value is not None:
            self.high = torch.full_like(self.length, self.value)
            self.low = self.high.clone()  # a file takes no tensor twice

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        strength = torch.as_tensor(strength, device=h.device).float()
        high, low, length = (end[..., None, None] for end in (self.high, self.low, self.length))
        share = strength.clamp(-1, 1)
        target = torch.where(strength < 0, low, high) + (strength - share) * length
        missing = target - h.float() @ self.direction.unsqueeze(-1)
        return share.abs() * missing * self.direction.unsqueeze(-2)
