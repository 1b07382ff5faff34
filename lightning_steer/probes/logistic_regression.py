"""Logistic regression from rows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.probes.logistic_solver import solve
from lightning_steer.probes.normal_equations import Fit


def logistic(h: Tensor, correct: Tensor, penalties: Sequence[float], sparse: bool = False) -> Fit:
    """Fit logistic regression of correctness: ``w . h + b`` is the logit of P(correct), in raw units of h.

    Minimises ``mean log(1 + exp(-z)) + penalty/2 |u|_2^2`` (or ``penalty |u|_1``) over standardised weights u and an
    unpenalised intercept.

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
    u, b = (torch.from_numpy(part).to(h.device) for part in solve(x, correct.numpy(), penalties, sparse))
    weight = u * (varies / scale.where(varies, torch.ones_like(scale)))
    return Fit(weight, b - (weight * mean).sum(-1))
