"""Lasso paths on a CPU, one problem at a time: coordinate descent finds the active set, Newton steps finish on it.

A round is some epochs of scikit-learn's coordinate descent (public ``enet_path``) and then, on the active set A with
signs s, Newton steps ``w_A <- w_A + C_AA^-1 (c - Cw - alpha s)_A``, on which weights that would change sign leave A.
Coordinate descent alone finds A soon, but then needs thousands of epochs on correlated features; the Newton step is
exact once A is right. Each round ends at the minimum over its signs and lowers the objective, so signs never repeat
and rounds are few: at most 7, where single Newton steps between the epochs took up to 196 or did not end
(outlier dimensions, duplicates, more features than rows; 15 seeds each). Speed: ``benchmarks/probe_training.py``.
"""

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import sklearn
import torch
from scipy.linalg import get_lapack_funcs
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import enet_path
from threadpoolctl import ThreadpoolController
from torch import Tensor

EPOCHS = 30
"""Epochs of coordinate descent per round; 20 to 50 are equally fast at widths of 256 and 2,048."""
SHARES = (1.0, 0.5, 0.25, 0.125, 0.0)
"""Shares of a Newton step, tried until the objective falls; the last stops at the first change of sign."""
ROUNDING = 1e-14
"""Duality gaps below this share of p are noise, on which scikit-learn's safe screening would drop active features."""
TINY = np.finfo(np.float64).tiny
RIDGES = (1e-10, 1e-6)
"""Ridges for C_AA, in units of its diagonal, as duplicate features make it singular; steps still descend."""


def solve(
    gram: Tensor, cross: Tensor, power: Tensor, alphas: Sequence[float], tolerance: float, rounds: int
) -> tuple[Tensor, Tensor]:
    """Minimise ``w'Cw/2 - c'w + p/2 + alpha |w|_1`` for each problem and penalty, to a relative duality gap.

    Args:
        gram: ``[B, d, d]`` C, float64, positive semidefinite; zero rows for features without variance.
        cross: ``[B, d]`` c.
        power: ``[B]`` p.
        alphas: penalties, best in descending order, as each starts from the solution of the one before.
        tolerance: relative duality gap at which to stop.
        rounds: maximum number of rounds; the last result is then returned.

    Returns:
        Weights ``[B, P, d]`` and rounds used ``[B, P]``.
    """
    problems = zip(gram.contiguous().numpy(), cross.contiguous().numpy(), power.tolist(), strict=True)
    # One BLAS thread: the steps are small, and on a busy machine two threads take ten times as long, waiting.
    with warnings.catch_warnings(), _blas().limit(limits=1, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # it stops early on purpose; the gap decides
        paths = [_path(*problem, alphas, tolerance, rounds) for problem in problems]
    return torch.from_numpy(np.stack([w for w, _ in paths])), torch.tensor([used for _, used in paths])


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()  # cached: finding the libraries takes as long as solving a small problem


def _path(
    c_matrix: np.ndarray, c: np.ndarray, power: float, alphas: Sequence[float], tolerance: float, rounds: int
) -> tuple[np.ndarray, list[int]]:
    rounds_used, weights = [], _descend(c_matrix, c, power, alphas, None)  # one call: its set-up costs 10 epochs
    for i, alpha in enumerate(alphas):
        w = weights[i]
        for r in range(1, rounds + 1):
            w, descent = _newton(c_matrix, c, w, alpha)
            if r == rounds or _gap(w, descent, c, power, alpha) <= tolerance:
                break
            w = _descend(c_matrix, c, power, [alpha], w)[0]
        weights[i] = w
        rounds_used.append(r)
    return weights, rounds_used


def _descend(
    c_matrix: np.ndarray, c: np.ndarray, power: float, alphas: Sequence[float], w: np.ndarray | None
) -> np.ndarray:
    """Return ``[P, d]`` after ``EPOCHS`` of coordinate descent for each penalty, from w, then from the one before."""
    # One pseudo-row without features and the target sqrt(p): enet_path takes n from x and y'y from y, the rest from
    # the Gram, and so solves the problem above.
    x, y = np.zeros((1, len(c))), np.array([np.sqrt(power)])
    options: dict[str, Any] = {"alphas": alphas, "precompute": c_matrix, "Xy": c, "coef_init": w, "check_input": False}
    with sklearn.config_context(skip_parameter_validation=True):  # most of its set-up time
        return enet_path(x, y, l1_ratio=1.0, max_iter=EPOCHS, tol=ROUNDING, **options)[1].T.copy()


def _gap(w: np.ndarray, descent: np.ndarray, c: np.ndarray, power: float, alpha: float) -> float:
    """Compute :func:`duality.relative_gap` of one problem in numpy: torch's overhead is 10 % of the time at d = 256."""
    residual = max(power - w @ (c + descent), 0.0)
    primal = residual / 2 + alpha * np.abs(w).sum()
    if primal == 0:
        return 0.0
    alignment, feasible = power - w @ c, alpha / max(np.abs(descent).max(), TINY)
    length = max(min(alignment / max(residual, TINY), feasible), -feasible)
    return (primal - length * alignment + length**2 * residual / 2) / primal


def _newton(c_matrix: np.ndarray, c: np.ndarray, w: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Minimise over weights with these signs or zero by Newton steps; returns w and c - Cw."""
    active = np.flatnonzero(w)
    w_active, rows = w[active], c_matrix[active]
    descent = c - w_active @ rows

    def value(w_active: np.ndarray, descent: np.ndarray) -> float:  # the objective, less p/2
        return alpha * np.abs(w_active).sum() - w_active @ (c[active] + descent[active]) / 2

    while len(active):
        signs = np.sign(w_active)
        step = _solve(rows, active, descent[active] - alpha * signs)
        if step is None:
            break
        leaving = step * signs < 0
        crossing = np.divide(-w_active, step, out=np.full_like(w_active, np.inf), where=leaving)
        first_crossing = crossing.min()
        for share in SHARES:  # weights that would change sign stop at zero, if the objective falls ...
            step_share = max(share, min(first_crossing, 1.0))
            w_end = np.where(crossing <= step_share, 0.0, w_active + step_share * step)
            end_descent = c - w_end @ rows
            if step_share <= first_crossing or value(w_end, end_descent) < value(w_active, descent):
                break  # ... which it always does up to the first crossing
        nonzero = np.flatnonzero(w_end)
        at_minimum = len(nonzero) == len(active)
        active, w_active, rows, descent = active[nonzero], w_end[nonzero], rows[nonzero], end_descent
        if at_minimum:
            break
    weights = np.zeros_like(w)
    weights[active] = w_active
    return weights, descent


def _solve(rows: np.ndarray, active: np.ndarray, right: np.ndarray) -> np.ndarray | None:
    """Return ``C_AA^-1 right`` for ``rows = C_A``, with the smallest ridge that makes C_AA definite, or None."""
    (posv,) = get_lapack_funcs(("posv",), dtype=np.float64)
    for ridge in RIDGES:
        matrix = rows.take(active, 1)
        matrix.flat[:: len(active) + 1] *= 1 + ridge
        _, solution, failed = posv(matrix.T, right, lower=True, overwrite_a=True)  # Fortran's order: solved in place
        if not failed:
            return solution
    return None
