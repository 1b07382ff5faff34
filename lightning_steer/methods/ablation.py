"""Directional ablation: remove the component along the mean difference.

``h' = h - strength * r r'h``, r the unit mean difference. Source: Arditi et al. 2024, arXiv 2406.11717, who remove one
r wherever a layer writes to the residual stream; here every site has its own.
One-sided (ours): ``h' = h - strength * min(r'h - b, 0) r``, b the component midway between the class means: rows on the
positive side of the middle stay as they are. Zero is not that middle: often both means lie on one side of it.
"""

import math

import torch
from torch import Tensor

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class Ablation(SteeringMethod):
    """Remove the component along the mean difference. Strength: share that is removed (1 = all of it, 2 mirrors it).

    Args:
        one_sided: remove only what lies on the negative side of the middle between the class means.
    """

    strength_range = (-math.inf, 2.0)
    default_strengths = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)

    def __init__(self, width: int, one_sided: bool = False) -> None:
        super().__init__(width)
        self.one_sided = one_sided
        self.register_buffer("direction", torch.zeros(width))
        self.register_buffer("baseline", torch.zeros(()))

    def estimate(self, seen: Activations) -> None:
        positive, negative = seen.positive.mean(-2), seen.negative.mean(-2)
        self.direction = torch.nn.functional.normalize(positive - negative, dim=-1)
        middle = (self.direction * (positive + negative)).sum(-1) / 2
        self.baseline = middle if self.one_sided else torch.zeros_like(middle)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        component = h.float() @ self.direction.unsqueeze(-1) - self.baseline[..., None, None]
        if self.one_sided:
            component = component.clamp(max=0)
        return -strength * component * self.direction.unsqueeze(-2)
