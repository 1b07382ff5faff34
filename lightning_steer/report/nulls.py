"""What a run could have seen where it saw nothing: no change is reported as absent without it."""

import math
from collections.abc import Mapping
from typing import Any

from lightning_steer.report.tables import FIXED, number
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.power import WANTED, could_have_seen


def nulls(report: Mapping[str, Any]) -> str:
    """Return a sentence on every change whose interval holds 0; empty if there is none.

    A change is a metric that the unsteered model has as 0 by definition, or that is named one.
    """
    unsteered = report["baselines"]["baseline"]
    found = []
    for name, figure in report["metrics"].items():
        known = unsteered.get(name, {})
        change = name.endswith("_change") or (known.get("how") == FIXED and known.get("value") == 0)
        low, high = (math.nan if figure.get(end) is None else figure[end] for end in ("low", "high"))
        if change and low <= 0 <= high and low < high:
            estimate = Estimate(*(figure.get(field) for field in Estimate._fields))
            seen, largest = could_have_seen(estimate), report.get("largest", {}).get(name, math.inf)
            what = (
                f"{number(seen)} or more" if seen <= largest else f"none, since there is none above {number(largest)}"
            )
            found.append(f"{name} ({what})")
    if not found:
        return ""
    return (
        f"Changes whose interval holds 0 may be there all the same. This run could have seen, in {WANTED:.0%} of "
        f"repeats, a change of: {', '.join(found)}."
    )
