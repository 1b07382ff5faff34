"""What a report says of gates: the share of rows that they steer, and the bound on those that they should not."""

import math
from collections.abc import Mapping
from typing import Any

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.methods.gated import LARGEST, Gated, Promise
from lightning_steer.statistics.estimate import Estimate


def figures(methods: Mapping[str, SteeringMethod]) -> dict[str, dict[str, Any]]:
    """Return ``gate_power`` and ``gate_bound`` of the gates among the methods, numbered if there are several."""
    gated = {site: method for site, method in methods.items() if isinstance(method, Gated)}
    metrics: dict[str, dict[str, Any]] = {}
    for number, method in enumerate(gated.values(), 1):
        promise, end = Promise(*method.promise.tolist()), "" if len(gated) == 1 else f"_{number}"
        how = f"at most, at confidence {1 - method.delta:g}"
        bound = Estimate(promise.bound, math.nan, promise.bound, int(promise.leave), None, how)
        power = Estimate(promise.power, promise.low, promise.high, int(promise.steer), None, "exact (Clopper-Pearson)")
        metrics |= {f"gate_power{end}": power._asdict(), f"gate_bound{end}": bound._asdict()}
    return metrics


def warnings(methods: Mapping[str, SteeringMethod]) -> list[str]:
    """Return a sentence for each gate that steers no row, as too few were given to promise anything."""
    return [
        f"The gate at {site} steers no row: {int(method.promise[0])} calibration rows that should be left alone are "
        f"too few for wrong gates of at most {method.eta:g} at confidence {1 - method.delta:g}."
        for site, method in methods.items()
        if isinstance(method, Gated) and float(method.threshold) >= LARGEST
    ]
