"""CAA's seven behaviours: slope and monotonicity from a table of means, and what such a table cannot say."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lightning_steer import text_files
from lightning_steer.studies.published.markdown import table
from lightning_steer.studies.published.sources import CAA, Section, head
from lightning_steer.studies.published.sources import table as path_of

FILE = "caa_golden.json"
ITEMS = 50
LAYER = 13
MULTIPLIERS = (-1.0, -0.5, 0.0, 0.5, 1.0)
BEHAVIOURS = (
    "coordinate-other-ais", "corrigible-neutral-HHH", "hallucination", "myopic-reward", "survival-instinct",
    "sycophancy", "refusal",
)  # fmt: skip


class Behaviour(NamedTuple):
    """Mean probability of the matching answer by multiplier."""

    name: str
    multipliers: tuple[float, ...]
    means: tuple[float, ...]

    @property
    def slope(self) -> float:
        """Return the least-squares slope, in probability a unit of the multiplier."""
        return float(np.polyfit(self.multipliers, self.means, 1)[0])

    @property
    def falls(self) -> list[tuple[float, float, float]]:
        """Return each step along the multipliers that goes down: from, to, by how much."""
        steps = zip(self.multipliers, self.multipliers[1:], np.diff(self.means), strict=False)
        return [(start, end, float(change)) for start, end, change in steps if change < 0]


def read(outcomes: Path) -> list[Behaviour]:
    """Return the behaviours; a mean that is null was not measured.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it is not what was expected.
    """
    path = path_of(outcomes, FILE)
    try:
        record = text_files.parse_json(text_files.read(path))
        multipliers, by_name = record["multipliers"], record["p_matching"]
        return [_behaviour(name, multipliers, means) for name, means in by_name.items()]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name} is not a table of multipliers and p_matching ({error!r})") from None


def _behaviour(name: str, multipliers: Sequence[float], means: Sequence[float | None]) -> Behaviour:
    if len(multipliers) != len(means):
        raise ValueError(f"{FILE}: {name!r} has {len(means)} means for {len(multipliers)} multipliers")
    measured = [(float(m), float(p)) for m, p in zip(multipliers, means, strict=True) if p is not None]
    if len(measured) < 2:
        raise ValueError(f"{FILE}: {name!r} has fewer than two means")
    return Behaviour(name, *(tuple(column) for column in zip(*sorted(measured), strict=True)))


def section(outcomes: Path) -> Section:
    """Return what the page says."""
    behaviours = read(outcomes)
    rising = [behaviour.name for behaviour in behaviours if behaviour.slope > 0]
    turning = [behaviour for behaviour in behaviours if behaviour.falls]
    rows = [
        (
            behaviour.name,
            f"{behaviour.means[0]:.3f} at {behaviour.multipliers[0]:g}",
            f"{behaviour.means[-1]:.3f} at {behaviour.multipliers[-1]:g}",
            f"{behaviour.slope:+.3f}",
            len(behaviour.means),
            "yes"
            if not behaviour.falls
            else "; ".join(f"falls by {-d:.3f} from {a:g} to {b:g}" for a, b, d in behaviour.falls),
        )
        for behaviour in behaviours
    ]
    turned = ", ".join(behaviour.name for behaviour in turning) or "none"
    sentence = (
        f"{len(rising)} of {len(behaviours)} behaviours have a positive slope; {len(behaviours) - len(turning)} rise "
        f"at every step. Those that do not: {turned}."
    )
    lines = [
        *head(CAA),
        f"**What the table supports.** {sentence}",
        "",
        *table(("behaviour", "lowest multiplier", "highest", "slope a unit", "number of means", "monotone"), rows),
        f"Each number is a mean of {ITEMS} items, and the items are not in this table. So there is no interval for any "
        "slope, no test of monotonicity, and no count of the items that moved the other way. Slopes are those of a "
        "straight line through the means. Whether one turns over at high multipliers, or the fall is chance, the table "
        "cannot tell. Nor can it tell letter from behaviour: the place of the matching answer is not in it.",
        "",
        "The items can: from a clone of the repository `python -m lightning_steer.studies.published.clones` makes a "
        "table of each behaviour that `judge` takes. That was not done for this page.",
        "",
    ]
    return Section(f"{sentence} The table holds means of {ITEMS} items, so none of this has an interval.", lines)
