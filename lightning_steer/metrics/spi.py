"""SPI, steering performance impact: the gained share of the possible improvement, or the lost share of the accuracy.

With A the unsteered accuracy and d its change: ``d / (1 - A)`` if d > 0, ``d / A`` if d < 0, else 0; in [-1, 1].
Source: Hedström et al. 2025 (MERA), arXiv 2510.13290. It ignores how the change came about: if nine of ten rows
are of one class, going from always the other class to always this one gives .89. So we never report it alone.
"""

import torch
from torch import Tensor

from lightning_steer.metrics import confusion as of
from lightning_steer.metrics.columns import as_clusters, as_numbers, estimate_columns
from lightning_steer.statistics.answer_table import AnswerTable
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Kind, Mean, Quantile, Share

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Reported quantiles of the error."""
OF_ERROR = {f"error_q{100 * q:02.0f}": Quantile(q) for q in QUANTILES}
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("error", "error_base"), Mean(0, 1)),
    "error_change": Mean(-1, 1),
    **dict.fromkeys(("answers_fixed", "answers_broken", "answers_still_wrong", "answers_still_right"), Share()),
    **OF_ERROR,
    **{f"{name}_base": kind for name, kind in OF_ERROR.items()},
}
"""Kinds of the columns of :func:`estimates`, except statistics of answers, which ``AnswerTable`` computes."""


def spi(base: Tensor, steered: Tensor) -> Tensor:
    """Return ``[...]`` SPI of accuracies ``base`` and ``steered`` in [0, 1]."""
    change, base = (steered - base).double(), base.double()
    room = torch.where(change > 0, 1 - base, base)
    return torch.where(change == 0, 0.0, change / room.where(change != 0, torch.ones_like(room)))


def transitions(base_right: Tensor, steered_right: Tensor) -> dict[str, Tensor]:
    """Return ``{"answers_fixed": [n], ...}`` bool: rows by being wrong (0) or right (1) before and after."""
    before, after = base_right.bool(), steered_right.bool()
    return {
        "answers_fixed": ~before & after,
        "answers_broken": before & ~after,
        "answers_still_wrong": ~before & ~after,
        "answers_still_right": before & after,
    }


def estimates(
    truth: Tensor,
    base: Tensor,
    steered: Tensor,
    base_error: Tensor,
    steered_error: Tensor,
    classes: int,
    cluster: Tensor | None = None,
) -> dict[str, list[Estimate]]:
    """Estimate all statistics of C steered models and the unsteered one, over the same rows.

    Args:
        truth: ``[n, C]`` true labels; like all others ``[n]`` for one model.
        base: labels that the unsteered model answers.
        steered: labels that the steered model answers.
        base_error: errors of the unsteered model, in [0, 1].
        steered_error: errors of the steered model, in [0, 1].
        classes: number of labels.
        cluster: ``[n]`` cluster of each row; None if rows are independent.

    Returns:
        ``spi``, and each of ``accuracy``, ``balanced_accuracy``, ``mcc``, ``f1``, ``precision``, ``recall`` and
        ``error`` with steering, as ``_base`` without, and as ``_change`` the difference; the transitions as shares of
        all rows; the quantiles of the error with steering and without.
    """
    answers = [as_numbers(column) for column in (truth, base, steered)]
    table_estimates = AnswerTable(classes).estimate(*answers, cluster=as_clusters(cluster))
    columns: dict[str, Tensor] = {"error_base": base_error, "error": steered_error}
    columns["error_change"] = steered_error.double() - base_error.double()
    columns |= {name: rows.double() for name, rows in transitions(base == truth, steered == truth).items()}
    for suffix, error in (("_base", base_error), ("", steered_error)):
        columns |= {f"{name}{suffix}": error for name in OF_ERROR}
    return table_estimates | estimate_columns(columns, KINDS, cluster)


def flip(before: Tensor, after: Tensor) -> bool:
    """Return whether accuracy rose but balanced accuracy and MCC did not both rise: a change of the favourite answer.

    Args:
        before: ``[K, K]`` confusion matrix of the unsteered model.
        after: ``[K, K]`` that of the steered one.
    """
    risen = of.accuracy(after) > of.accuracy(before)
    seen = (of.balanced_accuracy(after) > of.balanced_accuracy(before)) & (of.matthews(after) > of.matthews(before))
    return bool(risen & ~seen)
