"""Lasso paths on a CPU: coordinate descent to find the active set, Newton steps to finish on it; one problem at a time.

A round is some epochs of scikit-learn's coordinate descent (public ``enet_path``) and then, on the active set A with
signs s, Newton steps ``w_A <- w_A + C_AA^-1 (c - Cw - alpha s)_A``, on which weights that would change sign leave A.
Coordinate descent alone finds A soon, and then creeps along correlated features for thousands of epochs; the Newton
step is exact once A is right. Each round ends at the minimum over its signs and lowers the objective, so no signs come
twice and rounds are few: at most 7, where single Newton steps between the epochs took up to 196 or did not end
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
"""Of coordinate descent in a round; 20 to 50 cost alike at widths of 256 and 2,048."""
SHARES = (1.0, 0.5, 0.25, 0.125, 0.0)
"""Of a Newton step that are tried until the objective falls; the last goes to the first change of sign."""
ROUNDING = 1e-14
"""Duality gaps below this share of p are noise, on which scikit-learn's safe screening would drop active features."""
TINY = np.finfo(np.float64).tiny
RIDGES = (1e-10, 1e-6)
"""Added to C_AA, in units of its diagonal, as duplicate features make it singular; a step still leads downhill."""


def solve(
    gram: Tensor, cross: Tensor, power: Tensor, alphas: Sequence[float], tolerance: float, rounds: int
) -> tuple[Tensor, Tensor]:
    """Minimise ``w'Cw/2 - c'w + p/2 + alpha |w|_1`` for each problem and penalty, to a relative duality gap.

    Args:
        gram: ``[B, d, d]`` C, float64, positive semidefinite; zero rows for features without variance.
        cross: ``[B, d]`` c.
        power: ``[B]`` p.
        alphas: penalties, best from the largest to the smallest, as each starts from the one before.
        tolerance: relative duality gap at which to stop.
        rounds: give up after so many; the result is then what was reached.

    Returns:
        Weights ``[B, P, d]`` and rounds used ``[B, P]``.
    """
    problems = zip(gram.contiguous().numpy(), cross.contiguous().numpy(), power.tolist(), strict=True)
    # One BLAS thread: the steps are small, and on a busy machine two spend ten times as long waiting for each other.
    with warnings.catch_warnings(), _blas().limit(limits=1, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped early on purpose; the gap judges
        paths = [_path(*problem, alphas, tolerance, rounds) for problem in problems]
    return torch.from_numpy(np.stack([w for w, _ in paths])), torch.tensor([used for _, used in paths])


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()  # finding the libraries takes as long as solving a small problem: once


def _path(
    c_matrix: np.ndarray, c: np.ndarray, power: float, alphas: Sequence[float], tolerance: float, rounds: int
) -> tuple[np.ndarray, list[int]]:
    used, found = [], _descend(c_matrix, c, power, alphas, None)  # in one call: its set-up costs as much as 10 epochs
    for i, alpha in enumerate(alphas):
        w = found[i]
        for r in range(1, rounds + 1):
            w, descent = _newton(c_matrix, c, w, alpha)
            if r == rounds or _gap(w, descent, c, power, alpha) <= tolerance:
                break
            w = _descend(c_matrix, c, power, [alpha], w)[0]
        found[i] = w
        used.append(r)
    return found, used


def _descend(
    c_matrix: np.ndarray, c: np.ndarray, power: float, alphas: Sequence[float], w: np.ndarray | None
) -> np.ndarray:
    """``[P, d]`` so many epochs of coordinate descent for each penalty, from w, then from the one before."""
    # One pseudo-row without features and the target sqrt(p): enet_path takes n from x and y'y from y, the rest from
    # the Gram, and so solves the problem as it is written above.
    x, y = np.zeros((1, len(c))), np.array([np.sqrt(power)])
    given: dict[str, Any] = {"alphas": alphas, "precompute": c_matrix, "Xy": c, "coef_init": w, "check_input": False}
    with sklearn.config_context(skip_parameter_validation=True):  # the larger part of its set-up
        return enet_path(x, y, l1_ratio=1.0, max_iter=EPOCHS, tol=ROUNDING, **given)[1].T.copy()


def _gap(w: np.ndarray, descent: np.ndarray, c: np.ndarray, power: float, alpha: float) -> float:
    """As :func:`duality.relative_gap`, for one problem: at d = 256 torch's overhead would be a tenth of the whole."""
    residual = max(power - w @ (c + descent), 0.0)
    primal = residual / 2 + alpha * np.abs(w).sum()
    if primal == 0:
        return 0.0
    along, feasible = power - w @ c, alpha / max(np.abs(descent).max(), TINY)
    length = max(min(along / max(residual, TINY), feasible), -feasible)
    return (primal - length * along + length**2 * residual / 2) / primal


def _newton(c_matrix: np.ndarray, c: np.ndarray, w: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """The minimum over weights with these signs or zero, as far as Newton steps lead there; returns w and c - Cw."""
    active = np.flatnonzero(w)
    at, rows = w[active], c_matrix[active]
    descent = c - at @ rows

    def value(at: np.ndarray, descent: np.ndarray) -> float:  # the objective, less p/2
        return alpha * np.abs(at).sum() - at @ (c[active] + descent[active]) / 2

    while len(active):
        signs = np.sign(at)
        step = _solve(rows, active, descent[active] - alpha * signs)
        if step is None:
            break
        leaving = step * signs < 0
        crossing = np.divide(-at, step, out=np.full_like(at, np.inf), where=leaving)
        first = crossing.min()
        for share in SHARES:  # weights that would change sign stop at zero, if the objective falls for it ...
            part = max(share, min(first, 1.0))
            end = np.where(crossing <= part, 0.0, at + part * step)
            end_descent = c - end @ rows
            if part <= first or value(end, end_descent) < value(at, descent):
                break  # ... as it always does up to the first of them
        kept = np.flatnonzero(end)
        at_minimum = len(kept) == len(active)
        active, at, rows, descent = active[kept], end[kept], rows[kept], end_descent
        if at_minimum:
            break
    moved = np.zeros_like(w)
    moved[active] = at
    return moved, descent


def _solve(rows: np.ndarray, active: np.ndarray, right: np.ndarray) -> np.ndarray | None:
    """``C_AA^-1 right`` for ``rows = C_A``, with as little ridge as makes C_AA definite; None if none does."""
    (posv,) = get_lapack_funcs(("posv",), dtype=np.float64)
    for ridge in RIDGES:
        matrix = rows.take(active, 1)
        matrix.flat[:: len(active) + 1] *= 1 + ridge
        _, solution, failed = posv(matrix.T, right, lower=True, overwrite_a=True)  # Fortran's order: solved in place
        if not failed:
            return solution
    return None
