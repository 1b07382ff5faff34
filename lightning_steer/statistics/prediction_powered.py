"""A mean change that a judge scored on all rows, corrected by labels on some of them (prediction-powered inference).

The mean of the judge's changes on the other rows, times a weight, plus the mean of ``label - weight * judge`` on the
labelled rows: unbiased whatever the judge does, if the labelled rows are a random sample of all. The weight in [0, 1]
minimises the variance; at 0 only the labels count. Angelopoulos et al. 2023, Science 382:669, tuned as PPI++,
arXiv 2311.01453. Their normal interval is replaced by those of the two parts, which hold for rare changes too,
combined by their distances (Zou & Donner 2008).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_steer.statistics.columns import as_columns
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Change, Intervals, Mean

FEWEST = 100
"""With fewer labels, or rows without one, only labels count: the weight itself is an estimate."""
FEWEST_CHANGES = 10
"""With fewer labelled changes other than 0, only labels count: their interval is narrower."""
HOW = "labels and judge (PPI++), parts put together by their distances"


class Corrected(NamedTuple):
    """A change estimated by labels alone, and with the judge's help."""

    labels: Estimate
    corrected: Estimate
    weight: float
    """Weight of the judge; 0: not used."""


def corrected_change(labels: ArrayLike, judged: ArrayLike, others: ArrayLike, width: float, share: bool) -> Corrected:
    """Return the mean change over all rows, which are independent.

    Args:
        labels: ``[n]`` change of each labelled row.
        judged: ``[n]`` change of the same rows as the judge scored them.
        others: ``[m]`` change of the rows without a label as the judge scored them.
        width: largest possible absolute change.
        share: whether changes are -1, 0 and 1.
    """
    columns, unlabelled = as_columns(labels), np.asarray(others, dtype=np.float64).reshape(-1, 1)
    by_labels = _kind(width, share).estimate(columns)[0]
    if len(columns) < FEWEST or len(unlabelled) < FEWEST:
        return Corrected(by_labels, by_labels, 0.0)
    ends, weight = interval(columns, as_columns(judged), unlabelled, width, share)
    if not weight[0]:
        return Corrected(by_labels, by_labels, 0.0)
    [estimate] = ends.estimates(len(columns) + len(unlabelled), None)
    return Corrected(by_labels, estimate, float(weight[0]))


def _kind(width: float, share: bool) -> Change | Mean:
    return Change() if share else Mean(-width, width)


def interval(labels: NDArray, judged: NDArray, others: NDArray, width: float, share: bool) -> tuple[Intervals, NDArray]:
    """Return values and ends of C tables, ``labels`` and ``judged [n, C]``, ``others [m, C]``, and weights ``[C]``."""
    n, m = len(labels), len(others)
    covariance = ((labels - labels.mean(0)) * (judged - judged.mean(0))).mean(0)
    variance = np.vstack([judged, others]).var(0)
    weight = np.divide(covariance, (1 + n / m) * variance, out=np.zeros_like(variance), where=variance > 0)
    weight = np.where((labels != 0).sum(0) < FEWEST_CHANGES, 0.0, np.clip(weight, 0, 1))
    by_labels = _kind(width, share).interval(labels, None)
    difference = Mean(-2 * width, 2 * width).interval(labels - weight * judged, None)
    judge_part = _kind(width, share).interval(others, None)
    value = difference.value + weight * judge_part.value
    low = value - np.hypot(difference.value - difference.low, weight * (judge_part.value - judge_part.low))
    high = value + np.hypot(difference.high - difference.value, weight * (judge_part.high - judge_part.value))
    low, high = np.maximum(low, -width), np.minimum(high, width)
    value, low, high = (
        np.where(weight > 0, corrected, uncorrected)
        for corrected, uncorrected in ((value, by_labels.value), (low, by_labels.low), (high, by_labels.high))
    )
    return Intervals(value, low, high, HOW), weight
