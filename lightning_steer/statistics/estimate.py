"""The record of an estimate."""

import math
from typing import NamedTuple

LEVEL = 0.95
"""How often an interval promises to hold the true value."""
VERSION = 4
"""Of all formulas in this folder: raise it when one of them changes, so that studies make their stored parts anew.

1 had percentile bootstraps and named no version in a part; 2 takes intervals from kinds; 4 has CR2 in the
shares of clusters, no interval of a mean that a few rows may carry, and a narrower one of ICAT near its bound.
"""
BY_DEFINITION = "by definition"
"""``how`` of a value that is known without any row."""


class Estimate(NamedTuple):
    """A number, its 95 % interval, and what both rest on."""

    value: float
    low: float
    """Lower end; NaN where no interval is given, -inf where the interval has no lower end."""
    high: float
    """Upper end; NaN where no interval is given, inf where the interval has no upper end."""
    n: int
    """Number of rows."""
    clusters: int | None
    """Number of clusters of rows; None where rows are independent."""
    how: str
    """Method of the interval; ``none: <reason>`` where none is given."""

    @classmethod
    def described(cls, value: float, n: int, clusters: int | None, reason: str) -> "Estimate":
        """Return a number that no interval is known to hold for; ``reason`` begins with ``none: ``."""
        return cls(value, math.nan, math.nan, n, clusters, reason)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"
