"""Columns of rows, and the clusters that rows come in."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_steer.errors import UserError


class Clusters(NamedTuple):
    """The clusters of rows."""

    of_row: NDArray
    """``[n]`` index of each row's cluster, 0 to T - 1."""
    sizes: NDArray
    """``[T]`` number of rows of each cluster, float64."""

    def sums(self, columns: NDArray) -> NDArray:
        """Return the sums ``[T, C]`` of ``columns [n, C]`` within each cluster."""
        order = np.argsort(self.of_row, kind="stable")
        starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(int)
        return np.add.reduceat(columns[order], starts, axis=0)

    def like_independent(self) -> float:
        """Return the effective number of clusters, ``(sum m)^2 / sum m^2``."""
        return float(self.sizes.sum() ** 2 / np.square(self.sizes).sum())


def as_columns(values: ArrayLike) -> NDArray:
    """Return ``values [n]`` or ``[n, C]`` as float64 ``[n, C]``; raise ValueError if there are no rows."""
    columns = np.asarray(values, dtype=np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or not len(columns):
        raise UserError(f"a column is [n] or [n, C] with at least one row, not of shape {list(columns.shape)}")
    return columns


def as_clusters(cluster: ArrayLike | None, n: int) -> Clusters | None:
    """Return the clusters of n rows; None if rows are independent, so that each is its own cluster.

    Raises:
        ValueError: there is not one cluster for each row.
    """
    if cluster is None:
        return None
    cluster = np.asarray(cluster)
    if cluster.shape != (n,):
        raise UserError(f"clusters are one number for each of the {n} rows, not of shape {list(cluster.shape)}")
    of_row, sizes = np.unique(cluster, return_inverse=True, return_counts=True)[1:]
    return None if len(sizes) == n > 1 else Clusters(of_row, sizes.astype(np.float64))


def singletons(n: int) -> Clusters:
    """Return clusters of one row each."""
    return Clusters(np.arange(n), np.ones(n))
