"""Figures of a confusion matrix: what a share of right answers hides when classes are unequal.

A matrix ``[..., K, K]`` counts rows by true class (first) and answered class (second). Classes that never occur are
left out of means over classes. Source of the multi-class correlation: Gorodkin 2004, Comput. Biol. Chem. 28:367.
"""

import torch
from torch import Tensor


def confusion(truth: Tensor, answer: Tensor, classes: int, weights: Tensor | None = None) -> Tensor:
    """``[K, K]`` counts of rows with labels ``truth [n]``, ``answer [n]``; ``[R, K, K]`` under ``weights [R, n]``."""
    cell = torch.nn.functional.one_hot(truth.long() * classes + answer.long(), classes * classes).double()
    counts = cell.sum(0) if weights is None else weights.double() @ cell
    return counts.unflatten(-1, (classes, classes))


def accuracy(matrix: Tensor) -> Tensor:
    """``[...]`` share of right answers."""
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1) / matrix.sum((-2, -1))


def _recall(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1) / matrix.sum(-1)


def balanced_accuracy(matrix: Tensor) -> Tensor:
    """``[...]`` mean over classes of the share that is answered right; 1/K for whoever always says the same."""
    return _recall(matrix).nanmean(-1)


def precision(matrix: Tensor) -> Tensor:
    """``[...]`` by class, weighted by how often it is true; a class that is never answered counts as 0."""
    of_class = matrix.diagonal(dim1=-2, dim2=-1) / matrix.sum(-2)
    return (of_class.nan_to_num() * matrix.sum(-1)).sum(-1) / matrix.sum((-2, -1))


def f1(matrix: Tensor) -> Tensor:
    """``[...]`` harmonic mean of precision and recall by class, weighted by how often it is true."""
    right = matrix.diagonal(dim1=-2, dim2=-1)
    of_class = 2 * right / (matrix.sum(-1) + matrix.sum(-2))
    return (of_class.nan_to_num() * matrix.sum(-1)).sum(-1) / matrix.sum((-2, -1))


def matthews(matrix: Tensor) -> Tensor:
    """``[...]`` correlation of truth and answer in [-1, 1]; 0 where either is constant, whatever the accuracy."""
    true, answered, n = matrix.sum(-1), matrix.sum(-2), matrix.sum((-2, -1))
    right = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    spread = (n**2 - true.square().sum(-1)) * (n**2 - answered.square().sum(-1))
    return torch.where(spread > 0, (right * n - (true * answered).sum(-1)) / spread.clamp_min(1e-300).sqrt(), 0.0)
