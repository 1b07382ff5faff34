"""SPI, steering performance impact: which share of the possible improvement was won, or of the accuracy lost.

With A the unsteered accuracy and d its change: ``d / (1 - A)`` if d > 0, ``d / A`` if d < 0, else 0; in [-1, 1].
Source: Hedström et al. 2025 (MERA), arXiv 2510.13290. It is blind to how the change came about: where nine of ten rows
are of one class, going from always the other to always this one is worth .89. So it never stands alone here.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_steer.metrics import confusion as of
from lightning_steer.metrics.interval import Estimate, exact, percentile

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the error, as they are reported."""


def spi(base: Tensor, steered: Tensor) -> Tensor:
    """``[...]`` SPI of accuracies ``base`` and ``steered`` in [0, 1]."""
    change, base = (steered - base).double(), base.double()
    room = torch.where(change > 0, 1 - base, base)
    return torch.where(change == 0, 0.0, change / room.where(change != 0, torch.ones_like(room)))


def quantiles(values: Tensor, weights: Tensor) -> Tensor:
    """``[R, q]`` the :data:`QUANTILES` of ``values [n]`` under integer ``weights [R, n]`` (inverted distribution)."""
    order = values.argsort()
    reached = weights[:, order].cumsum(1)
    at = torch.searchsorted(reached, torch.tensor(QUANTILES, dtype=reached.dtype) * reached[:, -1:] - 1e-9)
    return values.double()[order][at.clamp_max(len(values) - 1)]


def transitions(base_right: Tensor, steered_right: Tensor) -> dict[str, Tensor]:
    """``{"0->1": [n], ...}`` bool: what became of each row, wrong (0) or right (1) before and after."""
    before, after = base_right.bool(), steered_right.bool()
    return {"0->1": ~before & after, "1->0": before & ~after, "0->0": ~before & ~after, "1->1": before & after}


def estimates(
    truth: Tensor,
    base: Tensor,
    steered: Tensor,
    base_error: Tensor,
    steered_error: Tensor,
    classes: int,
    weights: Tensor,
) -> dict[str, Estimate]:
    """Everything about one steered model beside the unsteered one, with paired bootstrap intervals over rows.

    Args:
        truth: ``[n]`` true labels.
        base: ``[n]`` labels that the unsteered model answers.
        steered: ``[n]`` labels that the steered model answers.
        base_error: ``[n]`` in [0, 1].
        steered_error: ``[n]``.
        classes: number of labels.
        weights: ``[R, n]`` bootstrap weights, the same for both models.

    Returns:
        ``spi``, and each of ``accuracy``, ``balanced_accuracy``, ``mcc``, ``f1``, ``precision``, ``recall`` and
        ``error`` as it is with steering, with ``_base`` without, and with ``_change`` the difference; the transitions
        as shares of all rows; the quantiles of the error with steering and without.
    """
    n = len(truth)
    one = torch.ones(1, n, dtype=torch.float64)

    def both(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        return function(one), function(weights)

    def estimate(values: tuple[Tensor, Tensor]) -> Estimate:
        return Estimate(float(values[0][0]), *percentile(values[1]), n)

    found: dict[str, Estimate] = {}
    before, after = (
        both(lambda w, answer=answer: of.confusion(truth, answer, classes, w)) for answer in (base, steered)
    )
    found["spi"] = estimate((_spi(before[0], after[0]), _spi(before[1], after[1])))
    for name, figure in (
        ("accuracy", of.accuracy),
        ("balanced_accuracy", of.balanced_accuracy),
        ("mcc", of.matthews),
        ("f1", of.f1),
        ("precision", of.precision),
        ("recall", of.accuracy),  # weighted by class it is the accuracy
    ):
        values = [(figure(m[0]), figure(m[1])) for m in (before, after)]
        found |= {f"{name}_base": estimate(values[0]), name: estimate(values[1])}
        found[f"{name}_change"] = estimate((values[1][0] - values[0][0], values[1][1] - values[0][1]))
    for name, answer in (("accuracy_base", base), ("accuracy", steered)):  # shares have exact intervals
        found[name] = Estimate(found[name].value, *exact(int((answer == truth).sum()), n), n)
    means = [both(lambda w, e=e: w @ e.double() / w.sum(1)) for e in (base_error, steered_error)]
    found |= {"error_base": estimate(means[0]), "error": estimate(means[1])}
    found["error_change"] = estimate((means[1][0] - means[0][0], means[1][1] - means[0][1]))
    for name, rows in transitions(base == truth, steered == truth).items():
        count = int(rows.sum())
        found[name] = Estimate(count / n, *exact(count, n), n)
    for suffix, error in (("_base", base_error), ("", steered_error)):
        values = both(lambda w, error=error: quantiles(error, w))
        for i, q in enumerate(QUANTILES):
            found[f"error_q{100 * q:02.0f}{suffix}"] = estimate((values[0][:, i], values[1][:, i]))
    return found


def _spi(before: Tensor, after: Tensor) -> Tensor:
    return spi(of.accuracy(before), of.accuracy(after))


def flip(before: Tensor, after: Tensor) -> bool:
    """Whether an SPI above 0 is no more than another favourite answer: neither figure that sees classes has risen.

    Args:
        before: ``[K, K]`` confusion matrix of the unsteered model.
        after: ``[K, K]`` that of the steered one.
    """
    risen = of.accuracy(after) > of.accuracy(before)
    seen = (of.balanced_accuracy(after) > of.balanced_accuracy(before)) & (of.matthews(after) > of.matthews(before))
    return bool(risen & ~seen)
