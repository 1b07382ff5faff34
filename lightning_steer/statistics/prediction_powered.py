"""A mean change that a judge scored on all rows, corrected by labels on some of them (prediction-powered inference).

The mean of the judge's changes on the other rows, times a weight, plus the mean of ``label - weight * judge`` on the
labelled rows: unbiased whatever the judge does, if the labelled rows are a random sample of all. The weight in [0, 1]
makes the variance least; at 0 the labels count alone. Angelopoulos et al. 2023, Science 382:669, tuned as PPI++,
arXiv 2311.01453. Their normal interval is replaced by those of the two parts, which hold for rare changes too, put
together by their distances (Zou & Donner 2008).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_steer.statistics.columns import as_columns
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Change, Intervals, Mean

FEWEST = 100
"""Labels, and rows without one, below which labels count alone: the weight is itself an estimate."""
FEWEST_CHANGES = 10
"""Labelled changes other than 0, below which labels count alone: their own interval is the narrower one."""
HOW = "labels and judge (PPI++), parts put together by their distances"


class Corrected(NamedTuple):
    """A change by labels alone, and with the judge's help."""

    labels: Estimate
    corrected: Estimate
    weight: float
    """How much the judge counts; 0: not at all."""


def corrected_change(labels: ArrayLike, judged: ArrayLike, others: ArrayLike, width: float, share: bool) -> Corrected:
    """Return the mean change over all rows, which are independent.

    Args:
        labels: ``[n]`` change of each labelled row.
        judged: ``[n]`` change of the same rows as the judge scored them.
        others: ``[m]`` change of the rows without a label as the judge scored them.
        width: largest possible change, either way.
        share: changes are -1, 0 and 1.
    """
    columns, rest = as_columns(labels), np.asarray(others, dtype=np.float64).reshape(-1, 1)
    alone = _kind(width, share).estimate(columns)[0]
    if len(columns) < FEWEST or len(rest) < FEWEST:
        return Corrected(alone, alone, 0.0)
    ends, weight = interval(columns, as_columns(judged), rest, width, share)
    if not weight[0]:
        return Corrected(alone, alone, 0.0)
    [estimate] = ends.estimates(len(columns) + len(rest), None)
    return Corrected(alone, estimate, float(weight[0]))


def _kind(width: float, share: bool) -> Change | Mean:
    return Change() if share else Mean(-width, width)


def interval(labels: NDArray, judged: NDArray, others: NDArray, width: float, share: bool) -> tuple[Intervals, NDArray]:
    """Return values and ends of C tables, ``labels`` and ``judged [n, C]``, ``others [m, C]``, and weights ``[C]``."""
    n, m = len(labels), len(others)
    covariance = ((labels - labels.mean(0)) * (judged - judged.mean(0))).mean(0)
    variance = np.vstack([judged, others]).var(0)
    weight = np.divide(covariance, (1 + n / m) * variance, out=np.zeros_like(variance), where=variance > 0)
    weight = np.where((labels != 0).sum(0) < FEWEST_CHANGES, 0.0, np.clip(weight, 0, 1))
    alone = _kind(width, share).interval(labels, None)
    difference = Mean(-2 * width, 2 * width).interval(labels - weight * judged, None)
    part = _kind(width, share).interval(others, None)
    value = difference.value + weight * part.value
    low = value - np.hypot(difference.value - difference.low, weight * (part.value - part.low))
    high = value + np.hypot(difference.high - difference.value, weight * (part.high - part.value))
    low, high = np.maximum(low, -width), np.minimum(high, width)
    value, low, high = (
        np.where(weight > 0, one, other) for one, other in ((value, alone.value), (low, alone.low), (high, alone.high))
    )
    return Intervals(value, low, high, HOW), weight
