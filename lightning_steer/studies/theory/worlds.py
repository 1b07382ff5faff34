"""A world of rows whose best probe, pattern and causal direction are known exactly.

A row is ``h = c m + noise`` with a class c of -1 or 1, equally likely, and noise of covariance W. Of its 16 turned
coordinates the first holds a loud copy of the class, the second a faint and clean one; the others hold none. A network
reads ``g.h``. Two networks read the same rows: one the faint copy, as the best probe does, one the loud copy.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.studies.theory.directions import PENALTIES, Directions, degrees, fit

WIDTH = 16
ROWS = (100, 20_000)
"""Numbers of rows to fit to; 1,000 others judge the penalties."""


class LinearWorld(NamedTuple):
    """The law of the rows."""

    mean: Tensor
    """``[d]`` m."""
    within: Tensor
    """``[d, d]`` W."""

    @property
    def sigma(self) -> Tensor:
        """Return the covariance of all rows."""
        return self.within + torch.outer(self.mean, self.mean)

    @property
    def networks(self) -> dict[str, Tensor]:
        """Return the causal direction of each network."""
        return {"reads the filter": torch.linalg.solve(self.within, self.mean), "reads the pattern": self.mean}

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return rows ``[n, d]`` and classes ``[n]``."""
        c = torch.randint(2, (n,), generator=generator).double() * 2 - 1
        noise = torch.randn(n, WIDTH, generator=generator, dtype=torch.float64)
        return c.unsqueeze(1) * self.mean + noise @ torch.linalg.cholesky(self.within).T, c

    def exact(self) -> Directions:
        """Return the directions and R2 of infinitely many rows, in closed form."""
        sigma, m = self.sigma, self.mean
        unit = sigma.diagonal().mean() * torch.eye(WIDTH, dtype=m.dtype)
        path = torch.stack([torch.linalg.solve(sigma + p * unit, m) for p in (0.0, *PENALTIES)])
        r2 = 2 * path @ m - (path @ sigma * path).sum(-1)
        return Directions(path, r2, 2 * m, sigma)


def world() -> LinearWorld:
    """Return the world: faint copy 20 times smaller than the loud one, and 5 times clearer."""
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)).double()).Q
    mean, spread = torch.zeros(WIDTH).double(), torch.ones(WIDTH).double()
    mean[:2], spread[1] = torch.tensor([1.0, 0.05]), 0.01
    return LinearWorld(turn @ mean, turn * spread.square() @ turn.T)


def simulate(n: int, seed: int) -> Directions:
    """Fit to n rows of the world."""
    generator = torch.Generator().manual_seed(seed)
    return fit(*world().draw(n, generator), *world().draw(1000, generator))


def angles(fitted: Directions) -> dict[str, dict[str, float]]:
    """Return the angle of each direction to what each network reads, by network."""
    return {
        network: {name: float(degrees(v, g)) for name, v in fitted.named().items()}
        for network, g in world().networks.items()
    }
