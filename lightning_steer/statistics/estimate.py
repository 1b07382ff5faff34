"""The record of an estimate."""

import math
from typing import NamedTuple

LEVEL = 0.95
"""Promised coverage of intervals."""
VERSION = 6
"""Of all formulas in this folder: raise it when one of them changes, so that studies make their stored parts anew.

1 had percentile bootstraps and named no version in a part; 2 takes intervals from kinds; 4 has CR2 in the
shares of clusters, no interval of a mean that a few rows may carry, and a narrower one of ICAT near its bound; 5 has no
interval of means that nothing bounds below 10 rows or clusters, nor of those over fewer than 20 units; 6 has intervals
with a width where all clusters have the same mean.
"""
BY_DEFINITION = "by definition"
"""``how`` of a value that is known without data."""
NO_INTERVAL = "not an interval: "
"""Start of ``how`` if ``low`` and ``high`` are something else, such as the range over a few units."""


class Estimate(NamedTuple):
    """A number, its 95 % interval, and the data that both rest on."""

    value: float
    low: float
    """Lower end; NaN without an interval, -inf if the interval has no lower end."""
    high: float
    """Upper end; NaN without an interval, inf if the interval has no upper end."""
    n: int
    """Number of rows."""
    clusters: int | None
    """Number of clusters of rows; None if rows are independent."""
    how: str
    """Method of the interval; ``none: <reason>`` if there is none."""

    @classmethod
    def described(cls, value: float, n: int, clusters: int | None, reason: str) -> "Estimate":
        """Return a number without a valid interval; ``reason`` begins with ``none: ``."""
        return cls(value, math.nan, math.nan, n, clusters, reason)

    def __str__(self) -> str:
        return self.text(3)

    def text(self, digits: int) -> str:
        """Format ``value [low, high]``, ``value (low to high)`` for a range, or the value alone if there is neither."""
        value, low, high = (f"{number:.{digits}f}" for number in self[:3])
        if math.isnan(self.low) or math.isnan(self.high):
            return value
        return f"{value} ({low} to {high})" if self.how.startswith(NO_INTERVAL) else f"{value} [{low}, {high}]"
