"""Directions that are fitted to rows and their labels, and angles between them."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.probes.linear import ols, ridge
from lightning_steer.probes.moments import Moments
from lightning_steer.probes.normal_equations import NormalEquations

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
"""Ridge penalties, in units of the rows' mean variance; least squares, 0, comes before them."""
TOLERANCE = 0.02
"""R2 that the largest acceptable penalty may cost."""


class Directions(NamedTuple):
    """Directions for every leading problem ``*``, such as a layer."""

    path: Tensor
    """``[*, 1 + P, d]`` weights of least squares and of ridge with each penalty."""
    r2: Tensor
    """``[*, 1 + P]`` R2 of each on rows that they were not fitted to."""
    difference: Tensor
    """``[*, d]`` mean of the rows with y above 0, less that of the others."""
    sigma: Tensor
    """``[*, d, d]`` covariance of the rows."""

    def at(self, index: Tensor) -> Tensor:
        """Return ``[*, d]`` the weights at a place of the path ``[*]``."""
        return self.path.gather(-2, index[..., None, None].expand(*index.shape, 1, self.path.shape[-1])).squeeze(-2)

    def named(self) -> dict[str, Tensor]:
        """Return ``[*, d]`` the directions that the tables compare."""
        good = self.r2 >= self.r2.amax(-1, keepdim=True) - TOLERANCE
        return {
            "w, least squares": self.path[..., 0, :],
            "w, penalty by R2": self.at(self.r2.argmax(-1)),
            "w, largest good penalty": self.at((good * torch.arange(good.shape[-1])).argmax(-1)),
            "Sigma w": along(self.sigma, self.path[..., 0, :]),
            "mean difference": self.difference,
        }


def fit(h: Tensor, y: Tensor, choice_h: Tensor, choice_y: Tensor) -> Directions:
    """Fit directions to rows ``h [*, n, d]`` with targets ``y [n]``, and judge the penalties on rows of their own."""
    h = h.double()
    x = h - h.mean(-2, keepdim=True)
    scale = x.square().mean((-2, -1), keepdim=True).sqrt()  # so that a penalty is in units of the mean variance
    equations = NormalEquations.of(Moments.like(h / scale, y).add(h / scale, y), standardise=False)
    fits = (ols(equations), ridge(equations, PENALTIES))
    path = torch.cat([f.weight[0] for f in fits], -2) / scale
    intercept = torch.cat([f.intercept[0] for f in fits], -1)
    predicted = choice_h.double() @ path.mT + intercept.unsqueeze(-2)
    error = (choice_y.double().unsqueeze(-1) - predicted).square().mean(-2)
    return Directions(
        path,
        1 - error / choice_y.double().var(correction=0),
        h[..., y > 0, :].mean(-2) - h[..., y <= 0, :].mean(-2),
        x.mT @ x / len(y),
    )


def degrees(a: Tensor, b: Tensor) -> Tensor:
    """Return the angle ``[*]`` between directions ``[*, d]``; above 90 where they oppose each other."""
    return torch.rad2deg(torch.cosine_similarity(a, b, dim=-1).clamp(-1, 1).acos())


def along(matrix: Tensor, v: Tensor) -> Tensor:
    """Return ``matrix [*, d, d]`` times ``v [*, d]``."""
    return (matrix @ v.unsqueeze(-1)).squeeze(-1)
