"""How well a probe predicts, under re-weightings of the rows: R2, root mean squared error, area under the ROC curve."""

from collections.abc import Callable
from functools import partial

import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_steer.statistics.kinds import Smooth


def r2(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """``[R]`` share of the variance of ``target [n]`` explained, under ``weights [R, n]``; NaN if it is constant."""
    mean = weights @ target / weights.sum(1)
    spread = (weights * (target - mean.unsqueeze(1)).square()).sum(1)
    left = weights @ (target - predicted).square()
    return torch.where(spread > 0, 1 - left / spread.clamp_min(1e-300), torch.nan)


def rmse(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """``[R]`` root mean squared error, in the units of ``target [n]``."""
    return (weights @ (target - predicted).square() / weights.sum(1)).sqrt()


def auc(score: Tensor, positive: Tensor, weights: Tensor) -> Tensor:
    """``[R]`` probability that a positive row scores above another, ties counted half; NaN without both kinds.

    Args:
        score: ``[n]``.
        positive: ``[n]`` 0 or 1.
        weights: ``[R, n]``.
    """
    level, place = score.unique(return_inverse=True)
    right = weights * positive.double()
    ups = torch.zeros(len(weights), len(level), dtype=torch.float64).index_add_(1, place, right)
    downs = torch.zeros_like(ups).index_add_(1, place, weights - right)
    below = downs.cumsum(1) - downs
    pairs = ups.sum(1) * downs.sum(1)
    return torch.where(pairs > 0, (ups * (below + downs / 2)).sum(1) / pairs.clamp_min(1e-300), torch.nan)


def _of_columns(measure: Callable[[Tensor, Tensor, Tensor], Tensor], weights: NDArray, *columns: NDArray) -> NDArray:
    guess, truth = (torch.from_numpy(column[:, 0]) for column in columns)
    return measure(guess, truth, torch.from_numpy(weights)).unsqueeze(1).numpy()


R2, RMSE, AUC = (
    Smooth(partial(_of_columns, r2), high=1),
    Smooth(partial(_of_columns, rmse), low=0),
    Smooth(partial(_of_columns, auc), 0, 1),
)
"""What predictions ``[n]`` beside their targets ``[n]`` estimate."""
R2_GAIN = Smooth(lambda w, a, b, truth: _of_columns(r2, w, a, truth) - _of_columns(r2, w, b, truth))
"""What two predictions ``[n]`` of the same targets ``[n]`` estimate: the gain of the first over the second."""
