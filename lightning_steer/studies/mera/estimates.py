"""Estimates over the study's draws."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.intervals import mean_over_units

Key = tuple[str, str, int]
"""Model, mixture, draw."""


def over_draws(values: Iterable[float | None]) -> dict[str, Any]:
    """Return the mean over draws of prompts and splits, with the range if they are few; missing values are skipped."""
    estimate = mean_over_units([float("nan") if v is None else v for v in values])
    value = estimate.value if estimate.n else None
    return {"value": value, "low": estimate.low, "high": estimate.high, "n": estimate.n, "how": estimate.how}


def deployed(method: Mapping[str, Any], name: str) -> float:
    """Return the figure that a user gets: of the steered model if certified, else of the baseline."""
    metrics = method["metrics"]
    if method["certified"]:
        return metrics[name]["value"]
    return 0.0 if name in ("spi", "answers_fixed", "answers_broken") else metrics[f"{name}_base"]["value"]


def shown(estimate: Mapping[str, Any], digits: int = 2) -> str:
    """Format a value with its interval or range, if it has one."""
    if estimate["value"] is None:
        return "-"
    value, low, high = (math.nan if estimate[name] is None else estimate[name] for name in ("value", "low", "high"))
    return Estimate(value, low, high, estimate["n"], None, estimate["how"]).text(digits)
