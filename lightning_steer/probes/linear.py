"""Dense linear predictors: least squares and ridge from moments, logistic regression from rows.

Ridge: ``(1/2n) |y - Xu - b|^2 + penalty/2 |u|^2`` (Hoerl & Kennard 1970, Technometrics 12:55), ordinary least squares
its limit at 0, with the shortest u if there are several. Penalties are per row, in standardised units, as the lasso's;
scikit-learn's ``Ridge`` calls n times the penalty ``alpha``, its ``LogisticRegression`` 1 / (n times it) ``C``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.probes.normal_equations import Fit, NormalEquations

RANK = 10 * torch.finfo(torch.float64).eps
"""Eigenvalues of C below this, times d and the largest, are rounding errors: directions without variance."""
STEPS = 10_000
"""Maximum steps of a logistic solver before it warns; a few to some hundreds are usual."""


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


def logistic(h: Tensor, correct: Tensor, penalties: Sequence[float], sparse: bool = False) -> Fit:
    """Fit logistic regression of correctness: ``w . h + b`` is the logit of P(correct), in raw units of h.

    Minimises ``mean log(1 + exp(-z)) + penalty/2 |u|_2^2`` (or ``penalty |u|_1``) over standardised weights u and an
    unpenalised intercept, by scikit-learn, whose solvers run on rows, not on moments.

    Args:
        h: ``[*, n, d]`` rows.
        correct: ``[n]`` bool.
        penalties: P positive numbers.
        sparse: penalise the L1 norm, to use few features; none above some penalty (``Fit.silent``).

    Raises:
        ValueError: all rows are of one class, values are not finite, or a penalty is not positive.

    Warns:
        ConvergenceWarning: from scikit-learn, if a solver stopped early.
    """
    correct = correct.bool().cpu()
    if not 0 < int(correct.sum()) < len(correct):
        raise UserError(f"logistic regression needs right and wrong rows, not {int(correct.sum())} of {len(correct)}")
    if not penalties or min(penalties) <= 0:
        raise UserError(f"logistic penalties must be positive numbers, not {list(penalties)}")
    if not h.isfinite().all():
        raise UserError("activations hold NaN or infinite values; nothing can be fitted to them")
    h = h.double()
    mean, scale = h.mean(-2, keepdim=True), h.std(-2, correction=0, keepdim=True)
    varies = scale > 1e-10 * mean.abs()  # else the feature is constant up to rounding, with weight zero
    x = ((h - mean) / scale.where(varies, torch.ones_like(scale)) * varies).cpu().numpy()
    fits = [_logistic(rows, correct.numpy(), p, sparse) for rows in x.reshape(-1, *x.shape[-2:]) for p in penalties]
    path_shape = (*h.shape[:-2], len(penalties))
    u = torch.from_numpy(np.stack([f.coef_[0] for f in fits])).reshape(*path_shape, -1).to(h.device)
    b = torch.from_numpy(np.array([f.intercept_ for f in fits])).reshape(path_shape).to(h.device)
    weight = u * (varies / scale.where(varies, torch.ones_like(scale)))
    return Fit(weight, b - (weight * mean).sum(-1))


def _logistic(x: np.ndarray, correct: np.ndarray, penalty: float, sparse: bool) -> LogisticRegression:
    # scikit-learn 1.8 renamed the choice of norm; older versions ignore the new name and use an L2 penalty.
    renamed = LogisticRegression().get_params()["penalty"] != "l2"
    norm: dict[str, Any] = {"l1_ratio": float(sparse)} if renamed else {"penalty": "l1" if sparse else "l2"}
    # liblinear penalises the intercept divided by its scaling: at 1,000 almost not at all.
    solver: dict[str, Any] = {"solver": "liblinear", "intercept_scaling": 1e3} if sparse else {"solver": "lbfgs"}
    options = {"C": 1 / (len(x) * penalty), "tol": 1e-6, "max_iter": STEPS, "random_state": 0}
    return LogisticRegression(**options, **norm, **solver).fit(x, correct)
