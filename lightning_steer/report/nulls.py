"""The effects that a run could have detected; no change is reported as absent without them."""

import math
from collections.abc import Mapping
from typing import Any

from lightning_steer.report.tables import FIXED, number
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.power import USUAL_POWER, could_have_seen


def nulls(report: Mapping[str, Any]) -> str:
    """Return a sentence on all changes whose interval contains 0; empty if there are none.

    A change is a metric that is 0 by definition for the baseline, or whose name ends in ``_change``.
    """
    unsteered = report["baselines"]["baseline"]
    changes = []
    for name, figure in report["metrics"].items():
        baseline_figure = unsteered.get(name, {})
        change = name.endswith("_change") or (baseline_figure.get("how") == FIXED and baseline_figure.get("value") == 0)
        low, high = (math.nan if figure.get(end) is None else figure[end] for end in ("low", "high"))
        if change and low <= 0 <= high and low < high:
            estimate = Estimate(*(figure.get(field) for field in Estimate._fields))
            detectable, largest = could_have_seen(estimate), report.get("largest", {}).get(name, math.inf)
            size = (
                f"{number(detectable)} or more"
                if detectable <= largest
                else f"none, since there is none above {number(largest)}"
            )
            changes.append(f"{name} ({size})")
    if not changes:
        return ""
    return (
        f"Changes whose interval holds 0 may be there all the same. This run could have seen, in {USUAL_POWER:.0%} of "
        f"repeats, a change of: {', '.join(changes)}."
    )
