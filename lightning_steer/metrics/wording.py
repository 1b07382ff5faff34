"""Format estimates as text."""

import math
from collections.abc import Mapping
from typing import Any


def percent(estimate: Mapping[str, Any]) -> str:
    """Return a share as ``97.1 % [96.3, 97.8]``, or ``97.1 % (no interval)``."""
    return with_ends(estimate, 100, 1, " %")


def with_ends(estimate: Mapping[str, Any], times: float = 1, digits: int = 3, unit: str = "") -> str:
    """Return ``value [low, high]``, or only the value if there is no interval.

    Args:
        estimate: ``{"value", "low", "high", "how"}``.
        times: factor for all three.
        digits: decimals.
        unit: what follows the value.
    """
    value, low, high = (times * estimate[key] for key in ("value", "low", "high"))
    if math.isnan(low) or math.isnan(high):
        return f"{value:.{digits}f}{unit} ({'by definition' if estimate['how'] == 'by definition' else 'no interval'})"
    return f"{value:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]"


def random_reach(random: Mapping[str, Any], value: float) -> str:
    """Compare a value with random directions of equal norm, ``{"value", "low", "high", "n", "p"}``."""
    at_least = round(random["p"] * (1 + random["n"])) - 1
    return (
        f"{at_least} of {random['n']} random directions of equal norm reach {value:.3f} or more, too (they go from "
        f"{random['low']:.3f} to {random['high']:.3f}; rank p-value {random['p']:.3f})"
    )
