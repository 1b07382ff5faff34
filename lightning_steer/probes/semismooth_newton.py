"""Lasso paths for many problems at once, dense linear algebra only: for a GPU.

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
"""Sigma: the first, its growth with every step solved (it shrinks with one not solved), and the last: digits go."""
RIDGE = 1e-10
"""Of the last, unregularised step, in units of C's diagonal: duplicate features make C_JJ singular."""
NEWTON = 30
"""Newton steps before a proximal step counts as not solved."""


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
        rounds: give up after so many proximal steps; the result is then what was reached.

    Returns:
        Weights ``[B, P, d]`` and proximal steps used ``[B, P]``.
    """
    w, found, used = torch.zeros_like(cross), [], []
    for alpha in alphas:
        w, gap = w.clone(), relative_gap(w, cross - _times(gram, w), cross, power, alpha)
        sigma, steps = torch.full_like(power, START), torch.zeros_like(power, dtype=torch.int64)
        for _ in range(rounds):
            live = (gap > tolerance).nonzero().squeeze(-1)
            if not len(live):
                break
            c_matrix = gram if len(live) == len(gram) else gram[live]
            one = c_matrix, cross[live], power[live]
            at, solved = _proximal_step(*one, w[live], sigma[live], alpha, tolerance)
            w[live], gap[live] = _polish(*one, at, alpha, tolerance)
            sigma[live] = torch.where(solved, sigma[live] * GROWTH, sigma[live] / GROWTH).clamp_max(LARGEST)
            steps[live] += 1
        found.append(w)
        used.append(steps)
    return torch.stack(found, 1), torch.stack(used, 1)


def _polish(
    gram: Tensor, cross: Tensor, power: Tensor, w: Tensor, alpha: float, tolerance: float
) -> tuple[Tensor, Tensor]:
    """The same w, or where that reaches the tolerance a Newton step further, with its signs; and its gap.

    So the digits that sigma costs are won back. Elsewhere w stays: a step on a singular C_JJ may go far astray.
    """
    descent = cross - _times(gram, w)
    ridge = RIDGE * gram.diagonal(dim1=-2, dim2=-1)
    further = w + _on_support(gram, w != 0, ridge, descent - alpha * w.sign())
    gap = relative_gap(w, descent, cross, power, alpha)
    further_gap = relative_gap(further, cross - _times(gram, further), cross, power, alpha)
    done = further_gap <= torch.clamp_max(gap, tolerance)
    return torch.where(done.unsqueeze(-1), further, w), torch.where(done, further_gap, gap)


def _proximal_step(
    gram: Tensor, cross: Tensor, power: Tensor, w: Tensor, sigma: Tensor, alpha: float, tolerance: float
) -> tuple[Tensor, Tensor]:
    """The next w of every problem, and whether its inner problem was solved."""
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
        for _ in range(30):  # Armijo; differences below rounding count as a fall
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
    """``E_J (C_JJ + diag(metric)_J)^-1 right_J [B, d]`` for each problem's own J, padded to the largest."""
    size = max(1, int(support.sum(-1).max()))
    chosen = support.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[:, :size]
    real = support.gather(-1, chosen)
    problem = torch.arange(len(gram), device=gram.device)[:, None, None]
    matrix = gram[problem, chosen.unsqueeze(-1), chosen.unsqueeze(-2)]
    matrix *= real.unsqueeze(-1) & real.unsqueeze(-2)
    matrix.diagonal(dim1=-2, dim2=-1).add_(torch.where(real, metric.gather(-1, chosen), 1.0))
    factor, failed = torch.linalg.cholesky_ex(matrix)
    solution = torch.cholesky_solve((right.gather(-1, chosen) * real).unsqueeze(-1), factor).squeeze(-1)
    # Where C is indefinite by more than the metric mends, no step: what remains is the gradient's direction.
    solution = torch.where(real & (failed == 0).unsqueeze(-1), solution, 0.0)
    return torch.zeros_like(metric).scatter(-1, chosen, solution)


def _times(gram: Tensor, v: Tensor) -> Tensor:
    return (gram @ v.unsqueeze(-1)).squeeze(-1)
