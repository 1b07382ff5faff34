"""The interaction of several interventions: the effect of all together less the sum of the single effects.

Every effect is a paired change from the same unsteered row, so that the interaction of a row is
``(all - baseline) - sum_i (one_i - baseline)``, and its interval that of a mean over rows.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_steer.errors import UserError
from lightning_steer.statistics.columns import as_columns
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Mean


def of_rows(baseline: ArrayLike, singles: Sequence[ArrayLike], together: ArrayLike) -> NDArray:
    """Return the interaction ``[n, C]`` of each row and target.

    Args:
        baseline: ``[n, C]`` outcomes of C targets without steering.
        singles: the same under each intervention alone, at least two.
        together: the same under all of them.

    Raises:
        ValueError: there are fewer than two interventions, or the shapes differ.
    """
    if len(singles) < 2:
        raise UserError(f"an interaction is of at least 2 interventions, not {len(singles)}")
    tables = [as_columns(table) for table in (baseline, together, *singles)]
    if len({table.shape for table in tables}) > 1:
        raise UserError(f"outcomes of the same rows and targets are needed, not {[t.shape for t in tables]}")
    plain, joint, *alone = tables
    return (joint - plain) - np.sum([one - plain for one in alone], axis=0)


def interaction(
    baseline: ArrayLike,
    singles: Sequence[ArrayLike],
    together: ArrayLike,
    low: float = -np.inf,
    high: float = np.inf,
    cluster: ArrayLike | None = None,
) -> list[Estimate]:
    """Return the mean interaction of each target, with its interval.

    Args:
        baseline: ``[n, C]`` outcomes of C targets without steering.
        singles: the same under each intervention alone.
        together: the same under all of them.
        low: the smallest value of an outcome.
        high: the largest value.
        cluster: ``[n]`` the cluster of each row; None: rows are independent.
    """
    reach = len(singles) * (high - low)  # all at one end together, and each alone at the other
    kind = Mean(-reach, reach) if np.isfinite(reach) else Mean()
    return kind.estimate(of_rows(baseline, singles, together), cluster)
