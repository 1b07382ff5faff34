"""SPI, steering performance impact: which share of the possible improvement was won, or of the accuracy lost.

With A the unsteered accuracy and d its change: ``d / (1 - A)`` if d > 0, ``d / A`` if d < 0, else 0; in [-1, 1].
Source: Hedström et al. 2025 (MERA), arXiv 2510.13290. It is blind to how the change came about: where nine of ten rows
are of one class, going from always the other to always this one is worth .89. So it never stands alone here.
"""

import torch
from torch import Tensor

from lightning_steer.metrics import confusion as of
from lightning_steer.metrics.columns import as_clusters, as_numbers, estimate_columns
from lightning_steer.statistics.answer_table import AnswerTable
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Kind, Mean, Quantile, Share

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the error, as they are reported."""
OF_ERROR = {f"error_q{100 * q:02.0f}": Quantile(q) for q in QUANTILES}
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("error", "error_base"), Mean(0, 1)),
    "error_change": Mean(-1, 1),
    **dict.fromkeys(("0->1", "1->0", "0->0", "1->1"), Share()),
    **OF_ERROR,
    **{f"{name}_base": kind for name, kind in OF_ERROR.items()},
}
"""What the columns of :func:`estimates` estimate, but for the figures of answers, which are an ``AnswerTable``."""


def spi(base: Tensor, steered: Tensor) -> Tensor:
    """``[...]`` SPI of accuracies ``base`` and ``steered`` in [0, 1]."""
    change, base = (steered - base).double(), base.double()
    room = torch.where(change > 0, 1 - base, base)
    return torch.where(change == 0, 0.0, change / room.where(change != 0, torch.ones_like(room)))


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
    cluster: Tensor | None = None,
) -> dict[str, list[Estimate]]:
    """Everything about C steered models beside the unsteered one, over the same rows.

    Args:
        truth: ``[n, C]`` true labels; like all others ``[n]`` for one model.
        base: labels that the unsteered model answers.
        steered: labels that the steered model answers.
        base_error: in [0, 1].
        steered_error: in [0, 1].
        classes: number of labels.
        cluster: ``[n]`` within which rows are not independent; None if all are.

    Returns:
        ``spi``, and each of ``accuracy``, ``balanced_accuracy``, ``mcc``, ``f1``, ``precision``, ``recall`` and
        ``error`` as it is with steering, with ``_base`` without, and with ``_change`` the difference; the transitions
        as shares of all rows; the quantiles of the error with steering and without.
    """
    answers = [as_numbers(column) for column in (truth, base, steered)]
    named = AnswerTable(classes).estimate(*answers, cluster=as_clusters(cluster))
    columns: dict[str, Tensor] = {"error_base": base_error, "error": steered_error}
    columns["error_change"] = steered_error.double() - base_error.double()
    columns |= {name: rows.double() for name, rows in transitions(base == truth, steered == truth).items()}
    for suffix, error in (("_base", base_error), ("", steered_error)):
        columns |= {f"{name}{suffix}": error for name in OF_ERROR}
    return named | estimate_columns(columns, KINDS, cluster)


def flip(before: Tensor, after: Tensor) -> bool:
    """Whether an SPI above 0 is no more than another favourite answer: neither figure that sees classes has risen.

    Args:
        before: ``[K, K]`` confusion matrix of the unsteered model.
        after: ``[K, K]`` that of the steered one.
    """
    risen = of.accuracy(after) > of.accuracy(before)
    seen = (of.balanced_accuracy(after) > of.balanced_accuracy(before)) & (of.matthews(after) > of.matthews(before))
    return bool(risen & ~seen)
