"""The record of an estimate."""

import math
from typing import NamedTuple

LEVEL = 0.95
"""How often an interval promises to hold the true value."""
VERSION = 5
"""Of all formulas in this folder: raise it when one of them changes, so that studies make their stored parts anew.

1 had percentile bootstraps and named no version in a part; 2 takes intervals from kinds; 4 has CR2 in the
shares of clusters, no interval of a mean that a few rows may carry, and a narrower one of ICAT near its bound; 5 has no
interval of means that nothing bounds below 10 rows or clusters, nor of those over fewer than 20 units.
"""
BY_DEFINITION = "by definition"
"""``how`` of a value that is known without any row."""
NO_INTERVAL = "not an interval: "
"""Beginning of ``how`` where ``low`` and ``high`` are something else, such as the range over a few units."""


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
        return self.text(3)

    def text(self, digits: int) -> str:
        """Return ``value [low, high]``; ``value (low to high)`` of a range, the value alone where there is neither."""
        value, low, high = (f"{number:.{digits}f}" for number in self[:3])
        if math.isnan(self.low) or math.isnan(self.high):
            return value
        return f"{value} ({low} to {high})" if self.how.startswith(NO_INTERVAL) else f"{value} [{low}, {high}]"
