"""Statistics whose intervals the study simulates, and their true values."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm as normal

from lightning_steer.statistics import answer_figures as figures
from lightning_steer.statistics.answer_table import all_figures


def normal_quantile(q: float) -> float:
    """Return the quantile of rows with mean 1 and variance 1."""
    return float(1 + normal.ppf(q))


def true_auc(d: float) -> float:
    """Return the chance that of two rows of different topics the positive one scores higher, d standard deviations."""
    return float(normal.cdf(d / np.sqrt(2)))


def auc(weights: NDArray, scores: NDArray, group: NDArray) -> NDArray:
    """Return ``[R, C]`` area under the curve of ``scores [n, C]`` for ``group [n]`` of 0 and 1."""
    positive, negative = group > 0, group == 0
    left, right = weights[:, positive], weights[:, negative]
    wins = np.zeros((len(weights), scores.shape[1]))
    for i, row in enumerate(scores[positive]):
        above = (row > scores[negative]) + 0.5 * (row == scores[negative])
        wins += left[:, i : i + 1] * (right @ above)
    return wins / (left.sum(1) * right.sum(1))[:, None]


def _moments(weights: NDArray, scores: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    total = weights.sum(1, keepdims=True)
    mean = weights @ scores / total
    return mean, (weights @ scores**2 / total - mean**2) * total / (total - 1), total


def margin(weights: NDArray, scores: NDArray, group: NDArray) -> NDArray:
    """Return ``[R, C]`` difference of the groups' means."""
    return (
        _moments(weights[:, group > 0], scores[group > 0])[0] - _moments(weights[:, group == 0], scores[group == 0])[0]
    )


def cohens_d(weights: NDArray, scores: NDArray, group: NDArray) -> NDArray:
    """Return ``[R, C]`` difference of the groups' means over the pooled standard deviation."""
    a, var_a, n_a = _moments(weights[:, group > 0], scores[group > 0])
    b, var_b, n_b = _moments(weights[:, group == 0], scores[group == 0])
    return (a - b) / np.sqrt(((n_a - 1) * var_a + (n_b - 1) * var_b) / (n_a + n_b - 2))


def icat(weights: NDArray, stereotype: NDArray, meaning: NDArray) -> NDArray:
    """Return ``[R, C]`` 100 times meaningful share times ``min(SS, 1 - SS) / .5``."""
    total = weights.sum(1, keepdims=True)
    score = weights @ stereotype / total
    return 100 * (weights @ meaning / total) * np.minimum(score, 1 - score) / 0.5


def true_figures(chances: NDArray) -> dict[str, float]:
    """Return the true value of each figure of ``chances [K, K, K]``."""
    true_values = {name: float(value) for name, value in all_figures(chances).items()}
    before, after = (float(figures.accuracy(chances.sum(axis))) for axis in (-1, -2))
    spi = float(figures.spi(np.array(before), np.array(after)))
    return true_values | {"accuracy_change": after - before, "spi": spi, "accuracy": after, "accuracy_base": before}
