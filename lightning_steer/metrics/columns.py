"""Turn columns of rows into estimates: every column has a declared kind, which determines its interval."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Kind


def estimate_columns(
    rows: Mapping[str, Tensor], kinds: Mapping[str, Kind], cluster: Tensor | None
) -> dict[str, list[Estimate]]:
    """Return the C estimates of each column.

    Args:
        rows: columns ``[n, C]`` of C interventions by name, or ``[n]`` of one.
        kinds: kind of each column.
        cluster: ``[n]`` cluster of each row, as any numbers; None if rows are independent.

    Raises:
        ValueError: a column has no declared kind, or values that its kind cannot have; the message names it.
    """
    estimates, groups = {}, as_clusters(cluster)
    for name, column in rows.items():
        if name not in kinds:
            raise UserError(
                f"the column {name!r} has no declared kind: say beside the column names what it estimates, such as "
                "Share() or Mean(0, 1)"
            )
        try:
            estimates[name] = kinds[name].estimate(as_numbers(column), groups)
        except ValueError as error:
            raise UserError(f"the column {name!r}: {error}") from error
    return estimates


def as_numbers(column: Tensor) -> NDArray[np.float64]:
    """Return a column as a float64 array on the CPU."""
    return column.detach().cpu().double().numpy()


def as_clusters(cluster: Tensor | None) -> NDArray | None:
    """Return clusters as an array on the CPU, or None."""
    return None if cluster is None else cluster.detach().cpu().numpy()
