"""Whether a cell holds what it promises, at a level of 99 %."""

from typing import Any

from scipy.stats import beta

LEAST, MOST_WITHOUT = 0.93, 0.2


def lower(count: int, sets: int) -> float:
    """Return the lower end of the 99 % interval of a share."""
    return float(beta.ppf(0.005, count, sets - count + 1)) if count else 0.0


def upper(count: int, sets: int) -> float:
    """Return the upper end of the 99 % interval of a share."""
    return float(beta.ppf(0.995, count + 1, sets - count)) if count < sets else 1.0


def promises(row: dict[str, Any]) -> bool:
    """Return whether a cell can fail: the power of certificates, where there is an effect, promises nothing."""
    return row.get("effect", 0) <= 0


def fault(row: dict[str, Any]) -> str:
    """Return which promise a cell breaks, "" if none."""
    sets = row["sets"]
    if "at_most" in row:
        ranks = len(row["at_most"]) + 1
        worst = [j for j, count in enumerate(row["at_most"], 1) if lower(count, sets) > j / ranks]
        return f"p is at most {worst[0]}/{ranks} too often" if worst else ""
    if "broken" in row:
        return "wrong gates above eta too often" if lower(row["broken"], sets) > row["delta"] else ""
    if "certified" in row:
        false = row["effect"] <= 0 and lower(row["certified"], sets) > row["delta"]
        return "false certificates above delta" if false else ""
    if upper(row["holds"], sets) < LEAST:
        return "coverage below .93"
    return "no interval too often" if row["common"] and row["none"] > MOST_WITHOUT else ""
