"""Intervals over networks, for results that are kept as one number for each network and target set."""

from typing import Any

from lightning_steer.statistics.intervals import mean_over_units


def clustered(values: Any) -> tuple[float, float, int]:
    """Mean and half-width of the 95 % t-interval of ``values [N][T]``, and N: networks are the clusters."""
    estimate = mean_over_units(values)
    return estimate.value, estimate.high - estimate.value, estimate.n  # NaN where all networks are the same


def plus_minus(values: Any, digits: int) -> str:
    """``mean ± half-width``."""
    mean, half, _ = clustered(values)
    return f"{mean:.{digits}f} ± {half:.{digits}f}" if half == half else f"{mean:.{digits}f}"
