"""Which rows of pairs belong together: those that share a prompt (or a topic), or both continuations."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def connected(rows: Sequence[Iterable[Hashable]]) -> list[int]:
    """Return the number of each row's cluster: rows that share a key, directly or through other rows, belong together.

    Args:
        rows: the keys of each row, at least one.
    """
    column: dict[Hashable, int] = {}
    edges = [(i, len(rows) + column.setdefault(key, len(column))) for i, keys in enumerate(rows) for key in keys]
    size, (row, key) = len(rows) + len(column), np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(row), dtype=np.int8), (row, key)), shape=(size, size))
    return connected_components(graph, directed=False)[1][: len(rows)].tolist()


LABELS = 3
"""Rows for each pair of continuations from which these are labels that were chosen, not texts that vary by chance."""


def are_labels(continuations: Iterable[frozenset[str]]) -> bool:
    """Return whether continuations are labels, such as Yes and No, each pair of which stands in several rows.

    Labels tie no rows: an interval then speaks about other prompts with these very labels, and reports say so.
    """
    rows = list(continuations)
    return len(rows) >= LABELS * len(set(rows))
