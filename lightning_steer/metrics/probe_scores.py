"""Scores of a probe's predictions under re-weightings of the rows: R2, root mean squared error, ROC AUC."""

from collections.abc import Callable
from functools import partial

import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_steer.statistics.kinds import Smooth


def r2(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return ``[R]`` explained share of the variance of ``target [n]`` under ``weights [R, n]``; NaN if constant."""
    mean = weights @ target / weights.sum(1)
    spread = (weights * (target - mean.unsqueeze(1)).square()).sum(1)
    unexplained = weights @ (target - predicted).square()
    return torch.where(spread > 0, 1 - unexplained / spread.clamp_min(1e-300), torch.nan)


def rmse(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return ``[R]`` root mean squared error, in the units of ``target [n]``."""
    return (weights @ (target - predicted).square() / weights.sum(1)).sqrt()


def auc(score: Tensor, positive: Tensor, weights: Tensor) -> Tensor:
    """Return ``[R]`` probability that a positive row scores above a negative one, ties half; NaN without both.

    Args:
        score: ``[n]``.
        positive: ``[n]`` 0 or 1.
        weights: ``[R, n]``.
    """
    level, level_of = score.unique(return_inverse=True)
    positive_weights = weights * positive.double()
    positives = torch.zeros(len(weights), len(level), dtype=torch.float64).index_add_(1, level_of, positive_weights)
    negatives = torch.zeros_like(positives).index_add_(1, level_of, weights - positive_weights)
    below = negatives.cumsum(1) - negatives
    pairs = positives.sum(1) * negatives.sum(1)
    return torch.where(pairs > 0, (positives * (below + negatives / 2)).sum(1) / pairs.clamp_min(1e-300), torch.nan)


def _column_score(measure: Callable[[Tensor, Tensor, Tensor], Tensor], weights: NDArray, *columns: NDArray) -> NDArray:
    predicted, target = (torch.from_numpy(column[:, 0]) for column in columns)
    return measure(predicted, target, torch.from_numpy(weights)).unsqueeze(1).numpy()


R2, RMSE, AUC = (
    Smooth(partial(_column_score, r2), high=1),
    Smooth(partial(_column_score, rmse), low=0),
    Smooth(partial(_column_score, auc), 0, 1),
)
"""Statistics of predictions ``[n]`` and their targets ``[n]``."""
R2_GAIN = Smooth(lambda w, a, b, truth: _column_score(r2, w, a, truth) - _column_score(r2, w, b, truth))
"""R2 of the first minus R2 of the second of two predictions ``[n]`` of the same targets ``[n]``."""
