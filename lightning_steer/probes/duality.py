"""The certificate of a lasso solution: a bound on its distance from the optimum, computed from the Gram.

Primal ``P(w) = |y - Xw|^2/2n + alpha |w|_1``; dual ``D(u) = (p - |y/sqrt(n) - u|^2)/2`` for any u with
``|X'u/sqrt(n)|_inf <= alpha``. D(u) <= min P <= P(w), so (P - D)/P bounds the relative error of the objective. u is the
residual, scaled into the feasible set and then to its best length (Mairal 2010, thesis, section 2.2); every term is a
product with ``C = X'X/n``, ``c = X'y/n`` or ``p = y'y/n``.
"""

import torch
from torch import Tensor


def objective(weight: Tensor, descent: Tensor, cross: Tensor, power: Tensor, alpha: Tensor | float) -> Tensor:
    """Return ``[*]`` P(w) for ``weight [*, d]`` and ``descent = c - Cw [*, d]``, the correlations with the residual."""
    return _residual(weight, descent, cross, power) / 2 + alpha * weight.abs().sum(-1)


def relative_gap(weight: Tensor, descent: Tensor, cross: Tensor, power: Tensor, alpha: Tensor | float) -> Tensor:
    """Return ``[*]`` (P(w) - D(u))/P(w), at most 1e-6 for a practically exact w; 0 if y is constant and w zero.

    Args:
        weight: ``[*, d]`` w.
        descent: ``[*, d]`` c - Cw, float64, recomputed from w, so that the bound includes rounding.
        cross: ``[*, d]`` c.
        power: ``[*]`` p.
        alpha: penalty, a number or ``[*]``, positive.
    """
    residual = _residual(weight, descent, cross, power)
    primal = residual / 2 + alpha * weight.abs().sum(-1)
    alignment = power - (weight * cross).sum(-1)  # residual . y / n
    tiny = torch.finfo(weight.dtype).tiny
    feasible = alpha / descent.abs().amax(-1).clamp_min(tiny)  # a larger multiple of the residual is infeasible
    length = torch.minimum(alignment / residual.clamp_min(tiny), feasible).maximum(-feasible)
    dual = length * alignment - length.square() * residual / 2
    return torch.where(primal > 0, (primal - dual) / primal.clamp_min(tiny), 0.0)


def _residual(weight: Tensor, descent: Tensor, cross: Tensor, power: Tensor) -> Tensor:
    """Return ``[*]`` |y - Xw|^2 / n."""
    return (power - (weight * (cross + descent)).sum(-1)).clamp_min(0)
