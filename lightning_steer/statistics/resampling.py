"""Bootstrap weights: how often each row is drawn."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_steer.statistics.estimate import LEVEL


def bootstrap_weights(n: int, resamples: int = 2000, seed: int = 0, cluster: ArrayLike | None = None) -> NDArray:
    """Return how often each row is drawn, ``[resamples, n]`` float64; rows of a ``cluster [n]`` are drawn together."""
    index = np.arange(n) if cluster is None else np.unique(np.asarray(cluster), return_inverse=True)[1]
    count = int(index.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn.astype(np.float64)[:, index]


def percentile(draws: ArrayLike) -> tuple[float, float]:
    """Return the middle 95 % of the finite ``draws [resamples]``; NaN if there are none.

    As an interval it covers rare changes far too rarely; it describes draws, and no estimate may use it.
    """
    draws = np.asarray(draws, dtype=np.float64)
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
