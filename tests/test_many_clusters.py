"""Degrees of freedom of many clusters: as by the matrix of all pairs of clusters, without that matrix."""

import tracemalloc

import numpy as np
import pytest

from lightning_steer.statistics.intervals import _satterthwaite
from lightning_steer.statistics.kinds import Change


@pytest.mark.parametrize("clusters", [2, 3, 10, 60])
@pytest.mark.parametrize("alike", [False, True])
def test_as_by_the_matrix(clusters: int, alike: bool) -> None:
    sizes = np.random.default_rng(0).integers(1, 40, clusters).astype(float)
    part, variances = sizes / sizes.sum(), sizes**2 if alike else sizes
    shared = np.outer(part, variances)
    matrix = np.diag(variances) - shared - shared.T + variances.sum() * np.outer(part, part)
    matrix /= np.sqrt(np.outer(1 - part, 1 - part))
    assert _satterthwaite(part, variances) == pytest.approx(np.trace(matrix) ** 2 / np.square(matrix).sum())


def test_memory_grows_with_the_clusters_not_with_their_square() -> None:
    sizes = np.resize([1, 2, 3], 4000)
    cluster = np.repeat(np.arange(4000), sizes)
    changes = np.resize([0, 1, 0, -1, 1], len(cluster))
    tracemalloc.start()
    [estimate] = Change().estimate(changes, cluster)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert estimate.clusters == 4000
    assert peak < 40 * 2**20  # the matrix alone had 122 MiB
