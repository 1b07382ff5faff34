"""Estimates over the study's draws."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy import stats

Key = tuple[str, str, int]
"""Model, mixture, draw."""


def over_draws(values: Iterable[float | None]) -> dict[str, Any]:
    """Mean and 95 % t-interval over draws of prompts and splits; draws without a value are left out."""
    found = np.array([v for v in values if v is not None and v == v], dtype=float)
    n = len(found)
    if not n:
        return {"value": None, "low": None, "high": None, "n": 0}
    half = stats.t.ppf(0.975, n - 1) * found.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return {"value": found.mean(), "low": found.mean() - half, "high": found.mean() + half, "n": n}


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
