"""Figures of a confusion matrix, which show what accuracy hides when classes are unequal.

A matrix ``[..., K, K]`` holds counts or chances by true class (first) and answered class (second). Classes that never
occur are left out of means over classes. Source of the multi-class correlation: Gorodkin 2004, Comput. Biol. Chem.
28:367; of SPI: Hedström et al. 2025 (MERA), arXiv 2510.13290.
"""

import numpy as np
from numpy.typing import NDArray


def _over(a: NDArray, b: NDArray) -> NDArray:
    """Return ``a / b``, NaN where b is 0."""
    return np.divide(a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), np.nan), where=b > 0)


def _parts(matrix: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    return np.einsum("...kk->...k", matrix), matrix.sum(-1), matrix.sum(-2), matrix.sum((-2, -1))


def accuracy(matrix: NDArray) -> NDArray:
    """Return the share of right answers ``[...]``."""
    right, _, _, n = _parts(matrix)
    return right.sum(-1) / n


def balanced_accuracy(matrix: NDArray) -> NDArray:
    """Return the mean over classes of the share that is answered right, ``[...]``."""
    right, true, _, _ = _parts(matrix)
    return np.nanmean(_over(right, true), -1)


def precision(matrix: NDArray) -> NDArray:
    """Return precision by class, weighted by how often it is true, ``[...]``; 0 for a class that is never answered."""
    right, true, answered, n = _parts(matrix)
    return (np.nan_to_num(_over(right, answered)) * true).sum(-1) / n


def f1(matrix: NDArray) -> NDArray:
    """Return the harmonic mean of precision and recall by class, weighted by how often it is true, ``[...]``."""
    right, true, answered, n = _parts(matrix)
    return (np.nan_to_num(_over(2 * right, true + answered)) * true).sum(-1) / n


def matthews(matrix: NDArray) -> NDArray:
    """Return the correlation of truth and answer in [-1, 1], ``[...]``; 0 where either is constant."""
    right, true, answered, n = _parts(matrix)
    spread = (n**2 - np.square(true).sum(-1)) * (n**2 - np.square(answered).sum(-1))
    over = (right.sum(-1) * n - (true * answered).sum(-1)) / np.sqrt(np.maximum(spread, 1e-300))
    return np.where(spread > 1e-12 * n**4, over, 0.0)


def spi(baseline: NDArray, steered: NDArray) -> NDArray:
    """Return the steering performance impact of two accuracies in [0, 1]: the achieved share of possible change."""
    change = steered - baseline
    room = np.where(change > 0, 1 - baseline, baseline)
    return np.divide(change, room, out=np.zeros_like(change), where=(change != 0) & (room > 0))
