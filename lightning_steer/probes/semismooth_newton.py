"""Lasso paths for many problems at once with dense linear algebra, for a GPU.

The proximal point iteration ``w <- argmin P(v) + |v - w|^2_M / (2 sigma)``, M = diag(C), each of its steps solved on
the dual, where it is smooth, by a semismooth Newton method with a line search (SsNAL; Li, Sun & Toh 2018, SIAM J.
Optim. 28:433). The dual variable is the residual of some v, ``u = y - Xv``, so Grams are enough. With g = c - Cv,
``p = soft(w + sigma g / M, sigma alpha / M)`` and J the support of p, the Newton step in v is
``m = (p - v) - E_J (C_JJ + M_J / sigma)^-1 (C (p - v))_J``. It converges from anywhere, in some 20 Cholesky
factorisations of the size of J for a penalty, where first-order methods take thousands of steps on correlated features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_steer.probes.duality import relative_gap

START, GROWTH, LARGEST = 100.0, 10.0, 1e6
"""Sigma: first value, growth after a solved step (it shrinks after an unsolved one), and limit, for precision."""
RIDGE = 1e-10
"""Ridge of the final, unregularised step, in units of C's diagonal: duplicate features make C_JJ singular."""
NEWTON = 30
"""Newton steps after which a proximal step counts as unsolved."""


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
        rounds: maximum number of proximal steps; the last result is then returned.

    Returns:
        Weights ``[B, P, d]`` and proximal steps used ``[B, P]``.
    """
    w, weights, steps_used = torch.zeros_like(cross), [], []
    for alpha in alphas:
        w, gap = w.clone(), relative_gap(w, cross - _times(gram, w), cross, power, alpha)
        sigma, steps = torch.full_like(power, START), torch.zeros_like(power, dtype=torch.int64)
        for _ in range(rounds):
            unsolved = (gap > tolerance).nonzero().squeeze(-1)
            if not len(unsolved):
                break
            c_matrix = gram if len(unsolved) == len(gram) else gram[unsolved]
            problem = c_matrix, cross[unsolved], power[unsolved]
            w_next, solved = _proximal_step(*problem, w[unsolved], sigma[unsolved], alpha, tolerance)
            w[unsolved], gap[unsolved] = _polish(*problem, w_next, alpha, tolerance)
            sigma[unsolved] = torch.where(solved, sigma[unsolved] * GROWTH, sigma[unsolved] / GROWTH).clamp_max(LARGEST)
            steps[unsolved] += 1
        weights.append(w)
        steps_used.append(steps)
    return torch.stack(weights, 1), torch.stack(steps_used, 1)


def _polish(
    gram: Tensor, cross: Tensor, power: Tensor, w: Tensor, alpha: float, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Take a final Newton step with the signs of w where it reaches the tolerance; returns w and its gap.

    This restores the precision that a large sigma costs. Other w stay: a step on a singular C_JJ may diverge.
    """
    descent = cross - _times(gram, w)
    ridge = RIDGE * gram.diagonal(dim1=-2, dim2=-1)
    newton_w = w + _on_support(gram, w != 0, ridge, descent - alpha * w.sign())
    gap = relative_gap(w, descent, cross, power, alpha)
    newton_gap = relative_gap(newton_w, cross - _times(gram, newton_w), cross, power, alpha)
    done = newton_gap <= torch.clamp_max(gap, tolerance)
    return torch.where(done.unsqueeze(-1), newton_w, w), torch.where(done, newton_gap, gap)


def _proximal_step(
    gram: Tensor, cross: Tensor, power: Tensor, w: Tensor, sigma: Tensor, alpha: float, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Return the next w of every problem, and whether its inner problem was solved."""
    metric = gram.diagonal(dim1=-2, dim2=-1)
    metric = metric.where(metric > 0, torch.ones_like(metric)) / sigma.unsqueeze(-1)
    threshold = alpha / metric

    def primal(descent: Tensor) -> Tensor:  # p
        z = w + descent / metric
        return z.sign() * (z.abs() - threshold).clamp_min(0)

    def smooth(v: Tensor, cv: Tensor) -> Tensor:  # the dual objective that Newton's method minimises
        return ((v * cv).sum(-1) + (primal(cross - cv).square() * metric).sum(-1)) / 2

    v, cv = w, _times(gram, w)
    for _ in range(NEWTON):
        p = primal(cross - cv)
        r = p - v
        cr = _times(gram, r)
        solved = (r * cr).sum(-1) <= (0.01 * tolerance) ** 2 * power  # squared length of the dual gradient
        if solved.all():
            break
        m = r - _on_support(gram, p != 0, metric, cr)
        cm = _times(gram, m)
        before, slope, t = smooth(v, cv), -(r * cm).sum(-1), torch.ones_like(power)
        for _ in range(30):  # Armijo; differences below rounding count as a decrease
            after = smooth(v + t.unsqueeze(-1) * m, cv + t.unsqueeze(-1) * cm)
            rises = after > before + 1e-4 * t * slope + 1e-14 * power
            if not rises.any():
                break
            t = torch.where(rises, t / 2, t)
        v, cv = v + t.unsqueeze(-1) * m, cv + t.unsqueeze(-1) * cm
    else:
        p = primal(cross - cv)
        solved = ((p - v) * _times(gram, p - v)).sum(-1) <= (0.01 * tolerance) ** 2 * power
    return p, solved


def _on_support(gram: Tensor, support: Tensor, metric: Tensor, right: Tensor) -> Tensor:
    """Return ``E_J (C_JJ + diag(metric)_J)^-1 right_J [B, d]`` for each problem's J, padded to the largest."""
    size = max(1, int(support.sum(-1).max()))
    indices = support.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[:, :size]
    valid = support.gather(-1, indices)
    problem = torch.arange(len(gram), device=gram.device)[:, None, None]
    matrix = gram[problem, indices.unsqueeze(-1), indices.unsqueeze(-2)]
    matrix *= valid.unsqueeze(-1) & valid.unsqueeze(-2)
    matrix.diagonal(dim1=-2, dim2=-1).add_(torch.where(valid, metric.gather(-1, indices), 1.0))
    factor, failed = torch.linalg.cholesky_ex(matrix)
    solution = torch.cholesky_solve((right.gather(-1, indices) * valid).unsqueeze(-1), factor).squeeze(-1)
    # No step where C + metric is still indefinite: the gradient's direction remains.
    solution = torch.where(valid & (failed == 0).unsqueeze(-1), solution, 0.0)
    return torch.zeros_like(metric).scatter(-1, indices, solution)


def _times(gram: Tensor, v: Tensor) -> Tensor:
    return (gram @ v.unsqueeze(-1)).squeeze(-1)
