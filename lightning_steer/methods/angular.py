"""Angular steering: turn each row in one plane towards the mean difference; its length is kept.

``h' = h + Q' (p' - p)``, ``p = Q h`` the row's part in the plane. Its first axis is the unit mean difference r, its
second the one along which the rows are longest once r is taken out. ``p'`` is p, turned towards r by ``strength``
degrees, or onto r if less will do; negative strengths turn towards -r.
Source: Vu & Nguyen 2025, arXiv 2510.26243, who turn every row to one target angle, as strengths 180 (to r) and -180 (to
-r) do. The steps between are ours: no target angle leaves all rows as they are. So is the second axis: theirs is the
first principal component of the mean differences of all layers, and a method knows one layer.
"""

import math

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class Angular(SteeringMethod):
    """Turn rows towards the mean difference, lengths kept. Strength: degrees (180 turns all rows all the way)."""

    strength_range = (-180.0, 180.0)
    default_strengths = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0)

    def __init__(self, width: int) -> None:
        super().__init__(width)
        if width < 2:
            raise UserError(f"Angular turns rows in a plane: it needs a width of 2 or more, not {width}")
        self.register_buffer("plane", torch.zeros(2, width))

    def estimate(self, seen: Activations) -> None:
        difference = (seen.positive.mean(-2) - seen.negative.mean(-2)).unsqueeze(-2)
        first = torch.nn.functional.normalize(difference, dim=-1)
        rest = seen.h - seen.h @ first.mT @ first
        second = torch.linalg.svd(rest, full_matrices=False).Vh[..., :1, :]
        second = torch.nn.functional.normalize(second - second @ first.mT @ first, dim=-1)
        self.plane = torch.cat([first, second * first.norm(dim=-1, keepdim=True)], -2)  # no difference, no plane

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        x, y = (h.float() @ self.plane.mT).split(1, -1)
        angle = torch.atan2(y, x)
        largest = torch.as_tensor(strength, device=h.device).float() * (math.pi / 180)
        reachable = torch.minimum(torch.maximum(largest, angle.abs() - math.pi), angle.abs())
        turn = -reachable * torch.ones_like(angle).copysign(angle)
        sine, versine = turn.sin(), 2 * (turn / 2).sin().square()  # 1 - cosine, without its rounding
        return torch.cat([-versine * x - sine * y, sine * x - versine * y], -1) @ self.plane
