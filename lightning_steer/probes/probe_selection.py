"""Choose penalty and layer by cross-validation in the training rows, then fit to all of them.

Scoring a probe on the rows that it was chosen on is biased; here held-out rows serve for neither choice nor fit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.probes.lasso import lasso
from lightning_steer.probes.linear import ols
from lightning_steer.probes.moments import Moments
from lightning_steer.probes.normal_equations import Fit, NormalEquations

PENALTIES = (0.5, 0.25, 0.1, 0.05, 0.01, 0.005, 0.0)
"""Lasso penalties of Hedström et al. 2025, arXiv 2510.13290; 0 is least squares."""


class Selected(NamedTuple):
    """P penalties for every problem ``*`` (layers, positions), scored on K held-out folds."""

    r2: Tensor
    """``[K, *, P]`` explained share of the variance in each fold, by the probe fitted to the others."""
    rmse: Tensor
    """``[K, *, P]`` root mean squared error, in the units of the target."""
    best: Tensor
    """``[*]`` index of the penalty with the largest mean R2."""
    fit: Fit
    """All penalties fitted to all rows: ``weight [*, P, d]``, ``intercept [*, P]``, in raw units."""
    gap: Tensor
    """``[*, P]`` relative duality gap of that fit; 0 for least squares."""

    @property
    def score(self) -> Tensor:
        """Return ``[*]`` mean R2 over folds at the chosen penalty, to compare layers."""
        return self.r2.mean(0).gather(-1, self.best.unsqueeze(-1)).squeeze(-1)

    @property
    def chosen(self) -> Fit:
        """Return ``weight [*, d]``, ``intercept [*]`` at the chosen penalty."""
        i = self.best.unsqueeze(-1)
        weight = self.fit.weight.gather(-2, i.unsqueeze(-1).expand(*i.shape, self.fit.weight.shape[-1])).squeeze(-2)
        return Fit(weight, self.fit.intercept.gather(-1, i).squeeze(-1))


def fit_path(equations: NormalEquations, penalties: Sequence[float]) -> tuple[Fit, Tensor]:
    """Fit ``[*, P]`` probes, one per penalty; returns them and their relative duality gaps."""
    positive = [p for p in penalties if p > 0]
    weights, intercepts, gaps = [], [], []
    if positive:
        path = lasso(equations, positive)
        lasso_index = iter(range(len(positive)))
    dense = ols(equations) if len(positive) < len(penalties) else None
    for penalty in penalties:
        if penalty > 0:
            i = next(lasso_index)
            weights.append(path.fit.weight[..., i, :])
            intercepts.append(path.fit.intercept[..., i])
            gaps.append(path.gap[..., i])
        elif dense is not None:
            weights.append(dense.weight[..., 0, :])
            intercepts.append(dense.intercept[..., 0])
            gaps.append(torch.zeros_like(dense.intercept[..., 0]))
    return Fit(torch.stack(weights, -2), torch.stack(intercepts, -1)), torch.stack(gaps, -1)


def select(moments: Moments, penalties: Sequence[float] = PENALTIES) -> Selected:
    """Cross-validate over the folds of ``moments``, then fit to all rows.

    Args:
        moments: moments of K folds, at least 2, each with rows.
        penalties: lasso penalties, on standardised features; 0 for least squares.

    Raises:
        ValueError: a penalty is negative, or there are too few folds or rows.
    """
    if not penalties or not all(0 <= p < float("inf") for p in penalties):
        raise UserError(f"penalties are positive numbers, or 0 for least squares, not {list(penalties)}")
    fold_fits = fit_path(NormalEquations.of(moments.training()), penalties)[0]
    r2, rmse = moments.r2(*fold_fits), moments.rmse(*fold_fits)
    all_rows = moments.over([range(len(moments.count))])
    fit, gap = fit_path(NormalEquations.of(all_rows), penalties)
    best = r2.mean(0).nan_to_num(-torch.inf).argmax(-1)
    return Selected(r2, rmse, best, Fit(fit.weight[0], fit.intercept[0]), gap[0])
