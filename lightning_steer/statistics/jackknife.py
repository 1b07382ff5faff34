"""Intervals by leaving out one cluster at a time, with Student's t.

The percentile bootstrap holds far less often than it says where a statistic has its largest value near the truth: ICAT
at an SS of 50 is covered in 64 to 68 % of simulations, and with three clusters nearly anything is covered too rarely.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.stats import t as student

from lightning_steer.statistics.estimate import LEVEL


def leave_one_out(cluster: ArrayLike) -> NDArray:
    """Return ``[T, n]`` weights, each of which leaves out one of the T clusters of ``cluster [n]``."""
    cluster = np.asarray(cluster)
    return (cluster != np.unique(cluster)[:, None]).astype(np.float64)


def jackknife(
    value: NDArray, left_out: NDArray, low: float = -math.inf, high: float = math.inf, debias: bool = False
) -> tuple[NDArray, NDArray, NDArray]:
    """Return values and t-intervals ``[C]`` of a smooth statistic, with T - 1 degrees of freedom.

    Args:
        value: ``[C]`` the statistic of all rows.
        left_out: ``[T, C]`` the same statistic under :func:`leave_one_out`; fewer than two clusters give NaN ends.
        low: least value that the statistic can take; the interval is cut off there. With both bounds given, it is the
            union with the interval on the scale of the logit between them.
        high: largest value that it can take.
        debias: take the bias of order 1 / T, as the jackknife sees it, off the value.
    """
    clusters = len(left_out)
    if clusters < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    center = clusters * value - (clusters - 1) * left_out.mean(0) if debias else value
    reach = student.ppf((1 + LEVEL) / 2, clusters - 1) * np.sqrt((clusters - 1) * left_out.var(0))
    least, most = np.maximum(center - reach, low), np.minimum(center + reach, high)
    if not (math.isfinite(low) and math.isfinite(high)):
        return center, least, most
    room = (center - low) * (high - center)  # of the logit's derivative: near a bound errors are lopsided
    inside = room > 0
    stretch = np.divide(reach * (high - low), room, out=np.zeros_like(reach), where=inside)
    odds = np.divide(center - low, high - center, out=np.ones_like(reach), where=inside)
    ends = [low + (high - low) * expit(np.log(odds) + sign * stretch) for sign in (-1, 1)]
    least = np.where(inside, np.minimum(least, ends[0]), least)
    return center, least, np.where(inside, np.maximum(most, ends[1]), most)
