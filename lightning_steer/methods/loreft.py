"""LoReFT: edit the stream inside a learned subspace, trained through the network's output.

``f(h) = h + R' (W h + b - R h)`` with orthonormal rows of R ``[rank, d]``;  ``h' = h + strength * (f(h) - h)``.
W starts at R and b at zero, so training starts from the identity. Source: Wu et al. 2024, arXiv 2404.03592, equation 2.
"""

import torch
from torch import Tensor, nn

from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class LoReFT(SteeringMethod):
    """Low-rank linear subspace edit trained through the output. Strength: share of the way (1 = all of it).

    Args:
        rank: dimensions of the subspace, at most the width of the stream; grows with (values - 1) times the attributes
            steered.
        seed: draws another starting subspace.
    """

    trained, classes = True, False

    def __init__(self, width: int, rank: int = 8, seed: int = 0) -> None:
        super().__init__(width)
        if not 1 <= rank <= width:
            raise UserError(f"rank must lie between 1 and the stream's width {width}, not {rank}")
        self.rank, self.seed = rank, seed
        self.subspace = nn.Parameter(torch.zeros(width, rank))  # R' is its orthonormal factor
        self.read = nn.Parameter(torch.zeros(width, rank))  # W'
        self.bias = nn.Parameter(torch.zeros(rank))

    def estimate(self, seen: Activations) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        start = torch.randn(*seen.h.shape[:-2], self.width, self.rank, generator=generator)
        start = torch.linalg.qr(start).Q.to(seen.h)
        self.subspace, self.read = nn.Parameter(start), nn.Parameter(start.clone())
        self.bias = nn.Parameter(start.new_zeros(*start.shape[:-2], self.rank))

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        rows = torch.linalg.qr(self.subspace).Q
        return strength * ((h.float() @ (self.read - rows) + self.bias.unsqueeze(-2)) @ rows.mT)
