"""The two options of a row between which a method moves the network."""

from typing import Any

import torch
from torch import Tensor


def direction(batch: Any, default: tuple[int, int]) -> tuple[int, int]:
    """Return the options that a batch's method moves away from and towards: ``(negative, positive)``.

    Args:
        batch: its negative texts hold one option each.
        default: the two, for a batch without rows.
    """
    for question, text in zip(batch.x, batch.negative, strict=True):
        negative = question.choices.index(text.choices[0])
        return negative, sum(default) - negative
    return default


def preference_loss(scores: Tensor, ends: tuple[int, int]) -> Tensor:
    """Return ``[...]`` minus the log-probability of preferring the positive of two options, of ``scores [..., k]``."""
    negative, positive = ends
    return torch.nn.functional.softplus(scores[..., negative] - scores[..., positive])
