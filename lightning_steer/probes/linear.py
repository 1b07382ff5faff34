"""Dense linear predictors from moments: least squares and ridge.

Ridge: ``(1/2n) |y - Xu - b|^2 + penalty/2 |u|^2`` (Hoerl & Kennard 1970, Technometrics 12:55), ordinary least squares
its limit at 0, with the shortest u if there are several. Penalties are per row, in standardised units, as the lasso's;
scikit-learn's ``Ridge`` calls n times the penalty ``alpha``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.probes.normal_equations import Fit, NormalEquations

RANK = 10 * torch.finfo(torch.float64).eps
"""Eigenvalues of C below this, times d and the largest, are rounding errors: directions without variance."""


def ols(equations: NormalEquations) -> Fit:
    """Fit ordinary least squares (P = 1); of all solutions, the one with the smallest standardised weights."""
    variance, axes, cross_along = _spectrum(equations)
    varies = variance > RANK * variance.shape[-1] * variance.amax(-1, keepdim=True).clamp_min(0)
    u = torch.where(varies, cross_along / variance.where(varies, torch.ones_like(variance)), 0.0)
    return equations.raw((axes @ u.unsqueeze(-1)).mT)


def ridge(equations: NormalEquations, penalties: Sequence[float]) -> Fit:
    """Fit ridge regression for P penalties, with one eigendecomposition per problem.

    Raises:
        ValueError: a penalty is not positive.
    """
    if not penalties or min(penalties) <= 0:
        raise UserError(f"ridge penalties must be positive numbers, not {list(penalties)}; use ols for a penalty of 0")
    variance, axes, cross_along = _spectrum(equations)
    penalty = torch.tensor(penalties, dtype=variance.dtype, device=variance.device).unsqueeze(-1)
    u = cross_along.unsqueeze(-2) / (variance.clamp_min(0).unsqueeze(-2) + penalty)
    return equations.raw(u @ axes.mT)


def _spectrum(equations: NormalEquations) -> tuple[Tensor, Tensor, Tensor]:
    """Return variances ``[*, d]`` along principal axes ``[*, d, d]`` (columns) of the features, and c along these."""
    try:
        variance, axes = torch.linalg.eigh(equations.gram)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        # LAPACK's divide and conquer may give up where most eigenvalues are zero
        axes, variance, _ = torch.linalg.svd(equations.gram)
    return variance, axes, (axes.mT @ equations.cross.unsqueeze(-1)).squeeze(-1)
