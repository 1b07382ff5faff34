"""Cluster rows of pairs that share a prompt (or a topic), or both continuations."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def connected(rows: Sequence[Iterable[Hashable]]) -> list[int]:
    """Return the number of each row's cluster: rows that share a key, directly or through other rows, belong together.

    Args:
        rows: the keys of each row, at least one.
    """
    node: dict[Hashable, int] = {}
    edges = [(i, len(rows) + node.setdefault(key, len(node))) for i, keys in enumerate(rows) for key in keys]
    nodes, (edge_rows, edge_keys) = len(rows) + len(node), np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edge_rows), dtype=np.int8), (edge_rows, edge_keys)), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1][: len(rows)].tolist()


LABELS = 3
"""Continuations are labels, not free texts, if each pair of them has at least this many rows on average."""


def are_labels(continuations: Iterable[frozenset[str]]) -> bool:
    """Return whether continuations are labels, such as Yes and No, that recur in several rows.

    Labels do not make rows dependent: intervals then cover other prompts with the same labels, and reports say so.
    """
    rows = list(continuations)
    return len(rows) >= LABELS * len(set(rows))
