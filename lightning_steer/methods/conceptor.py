"""Conceptor: a soft projection onto the directions that the positive rows use.

``C = R (R + aperture^-2 I)^-1``, ``R = H'H/n`` of the positive rows H, about zero; ``h' = h + strength * (C h - h)``.
Sources: Jaeger 2014, arXiv 1403.3369, also of AND, OR and NOT; for steering Postmus & Abreu 2024, arXiv 2410.16314, who
take ``beta C h``. Ours: R is divided by the rows' mean square, so that an aperture means the same at every layer.
``conjunction``, ``disjunction`` and ``negation`` combine the matrices of fitted conceptors, as in
``method.matrix = conjunction(first.matrix.double(), negation(second.matrix.double())).float()``.
"""

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations

ZERO = 1e-9
"""Eigenvalues of a conceptor lie between 0 and 1; from here down they count as 0."""


def conceptor(correlation: Tensor, aperture: float) -> Tensor:
    """Return the conceptor ``[*, d, d]`` of correlations ``[*, d, d]``; ``aperture`` in units of 1 / root of theirs."""
    values, axes = torch.linalg.eigh(correlation)
    values = values.where(values > 1e-12 * values.amax(-1, keepdim=True), 0.0)  # rounding, for large apertures
    return axes * (values / (values + aperture**-2)).unsqueeze(-2) @ axes.mT


def negation(c: Tensor) -> Tensor:
    """Return NOT c, ``I - c``, of conceptors ``[*, d, d]``: what c lets through is stopped, and the reverse."""
    return torch.eye(c.shape[-1]).to(c) - c


def conjunction(a: Tensor, b: Tensor) -> Tensor:
    """Return a AND b of conceptors ``[*, d, d]``: what both let through. Take float64: it inverts.

    ``(P (a^+ + b^+ - I) P)^+``, P the projection onto what is in the range of both (Jaeger 2014).
    """
    (inverse_a, kernel_a), (inverse_b, kernel_b) = _inverse_and_kernel(a), _inverse_and_kernel(b)
    values, axes = torch.linalg.eigh(kernel_a + kernel_b)
    common = axes * (values < ZERO).unsqueeze(-2)
    shared = common @ common.mT
    return torch.linalg.pinv(shared @ (inverse_a + inverse_b - torch.eye(a.shape[-1]).to(a)) @ shared, hermitian=True)


def disjunction(a: Tensor, b: Tensor) -> Tensor:
    """Return a OR b, ``NOT (NOT a AND NOT b)``, of conceptors ``[*, d, d]``: what either lets through."""
    return negation(conjunction(negation(a), negation(b)))


def _inverse_and_kernel(c: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pseudo-inverse and the projection onto what c maps to 0."""
    values, axes = torch.linalg.eigh(c)
    passes = values > ZERO
    inverse = (1 / values).where(passes, 0.0)
    return axes * inverse.unsqueeze(-2) @ axes.mT, axes * (~passes).unsqueeze(-2) @ axes.mT


class Conceptor(SteeringMethod):
    """Project softly onto the directions of the positive rows. Strength: share of the way (1 = all of it).

    Args:
        aperture: the larger, the more is kept: of a direction of mean square m, in units of the mean over all, the
            share ``m / (m + aperture^-2)``.
    """

    strength_range = (0.0, 1.0)
    default_strengths = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)

    def __init__(self, width: int, aperture: float = 1.0) -> None:
        super().__init__(width)
        if aperture <= 0:
            raise UserError(f"aperture must be positive, not {aperture}")
        self.aperture = aperture
        self.register_buffer("matrix", torch.zeros(width, width))

    def estimate(self, seen: Activations) -> None:
        h = seen.positive
        size = h.square().mean((-2, -1), keepdim=True).clamp_min(1e-30)
        self.matrix = conceptor(h.mT @ h / h.shape[-2] / size, self.aperture)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * (h.float() @ self.matrix - h.float())
