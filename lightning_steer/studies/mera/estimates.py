"""Estimates over the study's draws."""

from collections.abc import Iterable, Mapping
from typing import Any

from lightning_steer.statistics.intervals import mean_over_units

Key = tuple[str, str, int]
"""Model, mixture, draw."""


def over_draws(values: Iterable[float | None]) -> dict[str, Any]:
    """Mean and 95 % t-interval over draws of prompts and splits; draws without a value are left out."""
    estimate = mean_over_units([float("nan") if v is None else v for v in values])
    value = estimate.value if estimate.n else None
    return {"value": value, "low": estimate.low, "high": estimate.high, "n": estimate.n, "how": estimate.how}


def deployed(method: Mapping[str, Any], name: str) -> float:
    """A figure of what a user gets: the steered model if certified, else the model as it is."""
    metrics = method["metrics"]
    if method["certified"]:
        return metrics[name]["value"]
    return 0.0 if name in ("spi", "0->1", "1->0") else metrics[f"{name}_base"]["value"]


def shown(estimate: Mapping[str, Any], digits: int = 2) -> str:
    """Value with its interval, if it has one."""
    if estimate["value"] is None:
        return "-"
    low, high = estimate["low"], estimate["high"]
    if low is None or low != low:
        return f"{estimate['value']:.{digits}f}"
    return f"{estimate['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
