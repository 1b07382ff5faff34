"""Compare a fitted direction with random ones: their range and a rank p-value."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lightning_steer.errors import UserError
from lightning_steer.statistics.columns import as_columns


class RandomRange(NamedTuple):
    """The range of random draws, and the rank of a fitted value."""

    minimum: float
    median: float
    maximum: float
    draws: int
    p: float
    """Rank p-value, ``(1 + draws at least as good as the fitted value) / (1 + draws)``; NaN if it does not apply."""

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.minimum:.3f} to {self.maximum:.3f} in {self.draws} draws)"


@dataclass(frozen=True)
class RandomControl:
    """Compare D random draws with a fitted value: their range and a rank p-value, never a 95 % interval.

    Percentiles of 20 draws contain 87.7 % of new ones. A rank p-value is valid only if the fitted value had no more
    choice than the draws: if layer and strength are searched only for it, one more random direction is the best of
    21 in .21 of simulated searches over 5 layers, .36 over 12 and .52 over 24.

    Args:
        higher_is_better: True where a draw that is at least as large is at least as good, False where one that is at
            most as large is; None, and no p-value: no direction is wanted, or the setting was searched for the
            fitted value.
    """

    higher_is_better: bool | None

    def estimate(self, draws: ArrayLike, fitted: ArrayLike) -> list[RandomRange]:
        """Return a range for each candidate of ``draws [D, C]`` and ``fitted [C]`` (or ``[D]`` and one number)."""
        table, values = as_columns(draws), np.atleast_1d(np.asarray(fitted, dtype=np.float64))
        if values.shape != (table.shape[1],):
            raise UserError(f"there is one fitted value for {table.shape[1]} columns of draws, not {len(values)}")
        as_good = table >= values if self.higher_is_better else table <= values
        p = (1 + as_good.sum(0)) / (1 + len(table))
        p = np.where(
            (self.higher_is_better is not None) & np.isfinite(values) & np.isfinite(table).all(0), p, np.nan
        )  # values that cannot be compared have no rank
        ranges = (table.min(0), np.median(table, 0), table.max(0))
        return [RandomRange(a, b, c, len(table), d)
                for a, b, c, d in zip(*(r.tolist() for r in (*ranges, p)), strict=True)]  # fmt: skip
