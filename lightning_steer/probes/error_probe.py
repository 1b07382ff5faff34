"""The linear probe of a model's error: ``w . h + b`` predicts ``logit(E)`` in raw units of h.

Source of the probe: Hedström et al. 2025 (MERA), arXiv 2510.13290.
"""

from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.probes.lasso import lasso
from lightning_steer.probes.linear import ols, ridge
from lightning_steer.probes.moments import Moments
from lightning_steer.probes.normal_equations import Fit, NormalEquations

CLIP = 1e-6
"""Errors are clipped to this distance from 0 and 1, a logit of 14. In float32, 1 - 1e-8 is 1 and its logit inf."""


def logit_error(error: Tensor) -> Tensor:
    """Return ``[...]`` float64 logit of errors in [0, 1]; raises ValueError for others."""
    error = error.double()
    if not ((error >= 0) & (error <= 1)).all():
        raise UserError(f"errors lie in [0, 1], not {float(error.min()):g} to {float(error.max()):g}, and are numbers")
    return error.clamp(CLIP, 1 - CLIP).logit()


def fit_error_probe(h: Tensor, error: Tensor, penalty: float, sparse: bool) -> Fit:
    """Fit a probe for each leading problem: ``weight [*, d]``, ``intercept [*]`` in raw units.

    Args:
        h: ``[*, n, d]`` activations.
        error: ``[n]`` in [0, 1].
        penalty: on the weights of standardised features, per row; 0 for least squares.
        sparse: penalise the L1 norm (lasso), else the squared L2 norm (ridge).
    """
    target = logit_error(error).to(h.device)
    equations = NormalEquations.of(Moments.like(h, target).add(h, target))
    solve = ridge if not sparse else lambda equations, penalties: lasso(equations, penalties).fit
    fit = solve(equations, [penalty]) if penalty else ols(equations)
    return Fit(fit.weight[0, ..., 0, :], fit.intercept[0, ..., 0])
