"""Sentences for a report's warnings: reasons not to take its figures at face value."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_steer.statistics.estimate import Estimate

BROKEN = 0.1
"""A report warns if neutral text changes by more than this, in nats per token."""
FEW = 10
"""Fewer independent rows or clusters cannot distinguish strengths."""


def damage(metrics: Mapping[str, Any]) -> list[str]:
    """Return a warning if the effect on other text was not measured, or is larger than ``BROKEN``."""
    if "reference_kl" not in metrics:
        return [
            "What steering does to other text was not measured: give the data a file of such text as "
            "reference_texts, and read some steered text before you quote a figure."
        ]
    kl = metrics["reference_kl"]["value"]
    if kl <= BROKEN:
        return []
    return [
        f"Neutral text changed by {kl:.2f} nats per token (KL), more than {BROKEN:g}: the model no longer speaks as it "
        "did."
    ]


def at_the_edge(strength: float, strengths: Sequence[float], possible: tuple[float, float]) -> list[str]:
    """Return a warning if the chosen strength is the largest or smallest tried, and more extreme ones are possible.

    Args:
        strength: the chosen strength; one that was not tried (nothing is steered) gives no warning.
        strengths: all strengths that were tried.
        possible: the smallest and the largest strength that the method takes.
    """
    if strength not in strengths:
        return []
    if len(strengths) == 1:
        return [f"Only one strength was tried, {strength:g}: others may do better."]
    for name, comparative, edge, limit in (
        ("largest", "larger", max(strengths), possible[1]),
        ("smallest", "smaller", min(strengths), possible[0]),
    ):
        if strength == edge != limit:
            return [
                f"The {name} strength tried, {strength:g}, was chosen: {comparative} ones may do better "
                "(model.init_args.strengths)."
            ]
    return []


def few_to_choose_on(part: Mapping[str, int], certified: bool) -> list[str]:
    """Return a warning if the strength was chosen on few independent rows, unless it is certified.

    Args:
        part: ``{"rows", "clusters"}``, the numbers that it was chosen on.
        certified: whether it is certified; a certificate accounts for the number of rows.
    """
    rows, clusters = part["rows"], part["clusters"]
    if certified or clusters >= FEW:
        return []
    rows_text = f"{rows:,} rows" if rows == clusters else f"{rows:,} rows in {clusters} cluster{'s' * (clusters > 1)}"
    return [
        f"The strength was chosen on {'a single row' if rows == 1 else rows_text}: too few to tell strengths apart, so "
        "another draw of the rows may choose another one."
    ]


def few_pairs(parts: Sequence[Sequence[object]]) -> list[str]:
    """Return a warning if the pairs that are fitted to, choose and judge are too few to show anything.

    Args:
        parts: these three.
    """
    count, (fitted, chose, judged) = sum(map(len, parts)), map(len, parts)
    if count >= FEW:
        return []
    return [
        f"Only {count} pairs were given: {fitted} to fit to, {chose} to choose on and {judged} to judge on. They show "
        "that the command runs, and not whether the vector works: no figure of this report can be relied on. Give at "
        f"least {FEW} pairs."
    ]


def old_continuations(data: Mapping[str, Any]) -> list[str]:
    """Return a warning if held-out rows share their two continuations with fitting or selection rows.

    Args:
        data: the result of :func:`.parts.described`.
    """
    repeated, rows = data.get("repeated"), data["held_out"]["rows"]
    if repeated is None or not repeated["used"]:
        return []
    if repeated["distinct"] == 1:
        return ["All rows have the same two continuations: the result holds for these two, not for other texts."]
    if repeated["used"] == rows:
        return [
            f"All rows use {repeated['distinct']} pairs of continuations: the result and its intervals are about other "
            "prompts with these pairs, not about other continuations."
        ]
    return [
        f"{repeated['used']:,} of the {rows:,} held-out rows have two continuations that rows have which the method "
        "was fitted to or its strength chosen on: they show how it carries over to new prompts, not to new "
        "continuations."
    ]


def without_interval(name: str, estimate: Estimate) -> list[str]:
    """Return a warning if the measure that chose the strength has no interval."""
    if not math.isnan(estimate.low) or not estimate.how.startswith("none: "):
        return []
    return [f"There is no interval for {name} ({estimate.how.removeprefix('none: ')}): what was seen may be noise."]
