"""Estimates of means whose rows come in clusters (target terms, prompts), for many candidates at once."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_steer.metrics.interval import Estimate, exact, weighted_mean
from lightning_steer.metrics.jackknife import jackknife, leave_one_out

UNIT = (0.0, 1.0)
SIGNED = (-1.0, 1.0)
DOUBLE = (-2.0, 2.0)
"""A difference of two signed shares, or of two changes of a share."""
ANY = (-math.inf, math.inf)


def jackknifed(value: Tensor, left_out: Tensor, within: tuple[float, float] = ANY) -> list[Estimate]:
    """A statistic of C candidates, ``value [C]`` and ``left_out [T, C]``, with Student's t over the T clusters.

    A share that is 0 or 1 in every cluster would get no width: it gets the exact interval of T clusters; so does a
    difference of shares that is 0 in every one, in its own range.
    """
    found = []
    for one, others in zip(value, left_out.T, strict=True):
        at_a_bound = math.isfinite(within[1]) and float(one) in (0.0, *within) and bool((others == one).all())
        if at_a_bound and len(others) > 1:
            n = len(others)
            reach = exact(0, n)[1] * within[1]
            low, high = max(float(one) - reach, within[0]), min(float(one) + reach, within[1])
            found.append(Estimate(float(one), low, high, n))
        else:
            found.append(jackknife(one, others, within))
    return found


def means(
    rows: Mapping[str, Tensor], cluster: Tensor, within: Mapping[str, tuple[float, float]]
) -> dict[str, list[Estimate]]:
    """Mean of every column ``[n, C]`` for each of the C candidates, with jackknife-t intervals over clusters.

    Args:
        rows: columns by name.
        cluster: ``[n]`` the cluster of each row, as any numbers.
        within: for some columns, what their mean can be at all.
    """
    weights = leave_one_out(cluster)
    return {
        name: jackknifed(weighted_mean(column), weighted_mean(column, weights), within.get(name, ANY))
        for name, column in rows.items()
    }


def single(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Columns ``[n]`` of one candidate as columns ``[n, 1]``."""
    return {name: column.unsqueeze(-1) if column.dim() == 1 else column for name, column in rows.items()}


def checked_cluster(cluster: Tensor, n: int) -> Tensor:
    """The clusters of n rows on the processor; raises ValueError if they are not one a row."""
    if cluster.shape != (n,):
        raise ValueError(f"clusters are one number for each of the {n} rows, not of shape {list(cluster.shape)}")
    return torch.unique(cluster.cpu(), return_inverse=True)[1]
