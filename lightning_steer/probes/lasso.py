"""Sparse linear regression on moments: ``(1/2n) |y - Xw - b|^2 + alpha |w|_1``, scikit-learn's objective.

(Tibshirani 1996, JRSS B 58:267.) Every solution carries its relative duality gap, computed here from the result,
whatever the solver. scikit-learn's stopping rule is scaled by |y|^2 and its ``Lasso`` often ends unconverged.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.probes import coordinate_descent, semismooth_newton
from lightning_steer.probes.duality import objective, relative_gap
from lightning_steer.probes.normal_equations import Fit, NormalEquations

Solver = Callable[[Tensor, Tensor, Tensor, Sequence[float], float, int], tuple[Tensor, Tensor]]
"""``(gram [B, d, d], cross [B, d], power [B], alphas, tolerance, rounds) -> weights [B, P, d], rounds used [B, P]``."""


class LassoPath(NamedTuple):
    """Solutions for P penalties of every problem ``*``, in the order of the arguments."""

    fit: Fit
    """Weights and intercepts in raw units; ``fit.silent`` where the penalty removes all features."""
    gap: Tensor
    """``[*, P]`` relative duality gap: a bound on the objective's relative distance from the minimum."""
    objective: Tensor
    """``[*, P]`` minimised objective, in the squared units of y."""
    rounds: Tensor
    """``[*, P]`` rounds that the solver used."""
    converged: Tensor
    """``[*, P]`` bool: the gap is at most the tolerance."""


def lasso(
    equations: NormalEquations,
    alphas: Sequence[float],
    tolerance: float = 1e-6,
    rounds: int = 500,
    solver: Solver | None = None,
) -> LassoPath:
    """Fit all penalties to all problems.

    Args:
        equations: from :meth:`NormalEquations.of`; penalties act on standardised weights if those are.
        alphas: penalties, in units of y times those of X (which has none when standardised).
        tolerance: relative duality gap to reach.
        rounds: maximum rounds of the solver per penalty.
        solver: None takes the faster one: coordinate descent with Newton steps on a CPU, else semismooth Newton,
            batched over the problems.

    Raises:
        ValueError: a penalty is not positive and finite, or the equations are not finite.

    Warns:
        ConvergenceWarning: some problem did not reach the tolerance; ``converged`` says which.
    """
    if not alphas or not all(0 < a < math.inf for a in alphas):
        raise UserError(f"lasso penalties must be positive numbers, not {list(alphas)}; use ols for a penalty of 0")
    if rounds < 1:
        raise UserError(f"a solver needs at least 1 round, not {rounds}")
    if equations.gram.dtype != torch.float64:  # rounded Grams have an unseen gap of 1e-5 on the rows
        raise TypeError(f"lasso needs float64 equations, not {equations.gram.dtype}")
    if not all(x.sum().isfinite() for x in equations[:3]):
        raise UserError("the normal equations hold NaN or infinite values; check the moments they came from")
    if solver is None:
        solver = coordinate_descent.solve if equations.gram.device.type == "cpu" else semismooth_newton.solve
    shape, d = equations.power.shape, equations.cross.shape[-1]
    gram, cross, power = equations.gram.reshape(-1, d, d), equations.cross.reshape(-1, d), equations.power.reshape(-1)
    order = sorted(range(len(alphas)), key=lambda i: -alphas[i])  # largest first: warm starts
    weight, rounds_used = solver(gram, cross, power, [alphas[i] for i in order], tolerance, rounds)
    positions = [order.index(i) for i in range(len(alphas))]
    weight, rounds_used = weight[:, positions], rounds_used[:, positions]

    descent, alpha = cross.unsqueeze(1) - weight @ gram, torch.tensor(alphas, dtype=weight.dtype, device=weight.device)
    certificate = (weight, descent, cross.unsqueeze(1), power.unsqueeze(1), alpha)
    gap = relative_gap(*certificate)
    if not bool((gap <= tolerance).all()):
        warnings.warn(
            f"{int((gap > tolerance).sum())} of {gap.numel()} lasso fits stopped at a relative duality gap above "
            f"{tolerance:g} (worst {float(gap.max()):.1e}) after {rounds} rounds",
            ConvergenceWarning,
            stacklevel=2,
        )
    path_shape = (*shape, len(alphas))
    return LassoPath(
        equations.raw(weight.reshape(*path_shape, d)),
        gap.reshape(path_shape),
        objective(*certificate).reshape(path_shape),
        rounds_used.reshape(path_shape),
        (gap <= tolerance).reshape(path_shape),
    )
