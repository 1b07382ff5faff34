"""Measures of a confusion matrix, which show what accuracy hides when classes are unbalanced.

A matrix ``[..., K, K]`` counts rows by true class (first) and answered class (second). Classes that never occur are
left out of means over classes. Source of the multi-class correlation: Gorodkin 2004, Comput. Biol. Chem. 28:367.
"""

import torch
from torch import Tensor


def confusion(truth: Tensor, answer: Tensor, classes: int, weights: Tensor | None = None) -> Tensor:
    """Count rows with labels ``truth [n]``, ``answer [n]``: ``[K, K]``, or ``[R, K, K]`` under ``weights [R, n]``."""
    cell = torch.nn.functional.one_hot(truth.long() * classes + answer.long(), classes * classes).double()
    counts = cell.sum(0) if weights is None else weights.double() @ cell
    return counts.unflatten(-1, (classes, classes))


def accuracy(matrix: Tensor) -> Tensor:
    """Return ``[...]`` share of right answers."""
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1) / matrix.sum((-2, -1))


def _recall(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1) / matrix.sum(-1)


def balanced_accuracy(matrix: Tensor) -> Tensor:
    """Return ``[...]`` mean over classes of the recall; 1/K for a constant answer."""
    return _recall(matrix).nanmean(-1)


def precision(matrix: Tensor) -> Tensor:
    """Return ``[...]`` mean precision of the classes, weighted by their frequency; 0 for a class never answered."""
    by_class = matrix.diagonal(dim1=-2, dim2=-1) / matrix.sum(-2)
    return (by_class.nan_to_num() * matrix.sum(-1)).sum(-1) / matrix.sum((-2, -1))


def f1(matrix: Tensor) -> Tensor:
    """Return ``[...]`` mean F1 score of the classes, weighted by their frequency."""
    right = matrix.diagonal(dim1=-2, dim2=-1)
    by_class = 2 * right / (matrix.sum(-1) + matrix.sum(-2))
    return (by_class.nan_to_num() * matrix.sum(-1)).sum(-1) / matrix.sum((-2, -1))


def matthews(matrix: Tensor) -> Tensor:
    """Return ``[...]`` correlation of truth and answer in [-1, 1]; 0 if either is constant, whatever the accuracy."""
    true, answered, n = matrix.sum(-1), matrix.sum(-2), matrix.sum((-2, -1))
    right = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    spread = (n**2 - true.square().sum(-1)) * (n**2 - answered.square().sum(-1))
    return torch.where(spread > 0, (right * n - (true * answered).sum(-1)) / spread.clamp_min(1e-300).sqrt(), 0.0)
