"""Estimates with 95 % intervals: exact for shares of yes and no, bootstrap over rows or clusters for all else."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import beta
from torch import Tensor

from lightning_steer import numbers

LEVEL = 0.95


class Estimate(NamedTuple):
    """A number, its 95 % interval, and how many independent rows (or clusters of rows) it rests on."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def exact(successes: float, n: int) -> tuple[float, float]:
    """Clopper-Pearson interval of a share: covers the truth at least 95 % of the time, also at 0 and n successes."""
    tail = (1 - LEVEL) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high


def bootstrap_weights(n: int, resamples: int = 2000, seed: int = 0, cluster: Tensor | None = None) -> Tensor:
    """``[resamples, n]`` float64: how often each row is drawn. Rows of one ``cluster [n]`` are drawn together."""
    generator = torch.Generator().manual_seed(seed)
    of_row = torch.arange(n) if cluster is None else torch.unique(cluster, return_inverse=True)[1].cpu()
    count = int(of_row.max()) + 1
    numbers.fits(f"{resamples} resamples of {count} rows", resamples * count, 24)
    drawn = torch.randint(count, (resamples, count), generator=generator)
    weights = torch.zeros(resamples, count, dtype=torch.float64)
    weights.scatter_add_(1, drawn, torch.ones(resamples, count, dtype=torch.float64))
    return weights[:, of_row]


def percentile(draws: Tensor) -> tuple[float, float]:
    """The middle 95 % of bootstrap draws ``[resamples]``; draws without a value (0/0) are left out."""
    draws = draws[draws.isfinite()]
    if not len(draws):
        return float("nan"), float("nan")
    tail = (1 - LEVEL) / 2
    low, high = torch.quantile(draws.double(), torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def estimate_means(values: Tensor, weights: Tensor) -> list[Estimate]:
    """Means of the columns of ``values [n, C]``.

    Exact intervals for columns of 0 and 1 only, else bootstrap with ``weights [resamples, n]``; draws without a value
    (0/0) are left out.
    """
    values = values.double().cpu()
    n, share = len(values), ((values == 0) | (values == 1)).all(0)
    bounds = torch.empty(2, values.shape[1], dtype=torch.float64)
    successes = values[:, share].sum(0).numpy()
    tail = (1 - LEVEL) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(successes == 0, 0.0, beta.ppf(tail, successes, n - successes + 1))
        high = np.where(successes == n, 1.0, beta.ppf(1 - tail, successes + 1, n - successes))
    bounds[:, share] = torch.from_numpy(np.stack([low, high]))
    if not share.all():
        draws = weights @ values[:, ~share] / weights.sum(1, keepdim=True)
        draws = draws.where(draws.isfinite(), torch.nan)
        bounds[:, ~share] = draws.nanquantile(torch.tensor([tail, 1 - tail], dtype=torch.float64), 0)
    points = zip(values.mean(0).tolist(), bounds[0].tolist(), bounds[1].tolist(), strict=True)
    return [Estimate(mean, low, high, n) for mean, low, high in points]


def estimate_mean(values: Tensor, weights: Tensor) -> Estimate:
    """Mean of ``values [n]``: exact interval if all are 0 or 1, else bootstrap with ``weights [resamples, n]``."""
    return estimate_means(values.unsqueeze(1), weights)[0]


def weighted_mean(rows: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of ``rows [n, *]`` in float64: ``[*]``, or ``[R, *]`` under ``weights [R, n]``; NaN if all weights are 0."""
    if weights is None:
        return rows.double().mean(0)
    total = weights.sum(-1).reshape((*weights.shape[:-1], *[1] * (rows.dim() - 1)))
    return torch.tensordot(weights, rows.double(), 1) / total
