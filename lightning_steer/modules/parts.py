"""Count the rows that a method was fitted to, that chose its strength and that tested it, and how new the last are."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_steer.data.base import SteeringBatch

FITTED, SELECTION, HELD_OUT = "fitted", "selection", "held_out"
CONTINUATIONS = "continuations"


def columns(batch: SteeringBatch) -> dict[str, Tensor]:
    """Return columns ``[B]`` of a batch: each row's cluster and, for pairs of texts, a hash of its continuations."""
    if batch.compared_texts is None:
        return {"cluster": batch.cluster}
    numbers = [_number(texts) for texts in batch.compared_texts]
    compared = torch.tensor(numbers, dtype=torch.int64, device=batch.row.device)
    return {"cluster": batch.cluster, CONTINUATIONS: compared}


def _number(texts: list[str]) -> int:
    name = hashlib.blake2b("\0".join(sorted(texts)).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(name.digest(), "big", signed=True)


def described(tables: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Return ``{part: {"rows", "clusters"}}`` and, for pairs of texts, how many held-out rows repeat continuations.

    Args:
        tables: the :func:`columns` of all rows of each part.
    """
    counts: dict[str, Any] = {}
    for name, table in tables.items():
        clusters = table["cluster"].reshape(-1)  # torchmetrics turns a single row into a scalar
        counts[name] = {"rows": len(clusters), "clusters": len(clusters.unique())}
    if all(CONTINUATIONS in table for table in tables.values()):
        counts["repeated"] = _repeated(*(tables[name][CONTINUATIONS].cpu().reshape(-1).numpy() for name in tables))
    return counts


def _repeated(fitted: NDArray, selection: NDArray, held_out: NDArray) -> dict[str, int]:
    used = np.concatenate([fitted, selection])
    _, index, count = np.unique(held_out, return_inverse=True, return_counts=True)
    return {
        "distinct": len(np.unique(np.concatenate([used, held_out]))),
        "used": int(np.isin(held_out, used).sum()),
        "held_out": int((count[index] > 1).sum()),
    }
