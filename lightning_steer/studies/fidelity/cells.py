"""Cells of the fidelity study's tables (values with intervals or random directions), and the footnotes below them.

A part stores an estimate as a list in the order of :class:`Estimate`'s fields; null stands for a value that is not
finite.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_steer.report.tables import cell, number
from lightning_steer.statistics.estimate import BY_DEFINITION, Estimate
from lightning_steer.statistics.random_control import RandomControl

RANDOM = (
    "Random directions are as long as the vector that they stand beside: their median and, in brackets, the least and "
    "the largest of them. The rank p-value of the vector's own value is (1 + draws at least as large) / (1 + draws). "
    "Where layer or strength were chosen for the vector and not for them, it is smaller than a p-value would be."
)


def of_part(fields: Sequence[Any]) -> Estimate:
    """Return an estimate from a part's stored fields."""
    return Estimate(*fields)


def of_report(figure: Mapping[str, Any]) -> Estimate:
    """Return an estimate from a report's figure."""
    return Estimate(*(figure[name] for name in Estimate._fields))


def as_cell(estimate: Estimate) -> str:
    """Format ``value [low, high]``, or the value alone if it has no interval."""
    return cell(estimate._asdict())


def above(estimate: Estimate, level: float) -> bool:
    """Return whether the whole interval lies above a level; False without an interval."""
    return estimate.low is not None and estimate.low > level


def random_cells(draws: Sequence[float], value: float) -> list[str]:
    """Return ``median (smallest to largest)`` of random draws, and the rank p-value of a value among them."""
    control = RandomControl(higher_is_better=True).estimate(draws, value)[0]
    return _random(control.median, control.minimum, control.maximum, control.p)


def reported_random_cells(figure: Mapping[str, Any]) -> list[str]:
    """Return the same from a report, whose low and high are the smallest and the largest draw."""
    return _random(figure["value"], figure["low"], figure["high"], figure["p"])


def _random(median: float, least: float, largest: float, p: float) -> list[str]:
    return [f"{number(median)} ({number(least)} to {number(largest)})", number(p)]


def footnote(estimates: Iterable[Estimate], rows: str = "examples", clusters: str = "target terms") -> str:
    """Return a table's footnote: number of rows and clusters, kinds of intervals, why a value has none."""
    listed = list(estimates)
    counts = dict.fromkeys(
        f"{e.n} {rows}" if e.clusters is None else f"{e.n} {rows} in {e.clusters} {clusters}" for e in listed
    )
    methods = dict.fromkeys(e.how for e in listed if e.low is not None or e.high is not None)
    reasons = dict.fromkeys(e.how.removeprefix("none: ") for e in listed if e.low is None and e.high is None)
    sentences = [f"Rows: {'; '.join(counts)}."] if counts else []
    sentences += [f"Intervals: {', '.join(methods)}."] if methods else []
    for reason in reasons:
        definition = "it is known by definition, since nothing is steered"
        sentences.append(f"A value without an interval: {definition if reason == BY_DEFINITION else reason}.")
    return "\n" + " ".join(sentences) + "\n" if sentences else ""
