"""Markdown tables of the crossed designs; each contrast shows the value of every kind of world."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_steer import markdown
from lightning_steer.studies.declaration import Question, Result, claim, verdicts

LEAST_P = 1e-4
"""Smaller p-values of so few kinds are not distinguished."""
ROUNDING = 1e-6
"""Differences between kinds that come from the order of sums."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(markdown.table(head, rows)) + "\n"


def verdict_table(question: Question, results: Mapping[str, Result], units: Mapping[str, NDArray]) -> str:
    """Return every declared contrast with the kinds' values and range; kinds are not a sample, so there is no interval.

    Raises:
        ValueError: see :func:`lightning_steer.studies.declaration.verdicts`.
    """
    rows = []
    for contrast, result, adjusted, shown in verdicts(question, results):
        values = units[contrast.name]
        rows.append(
            [
                contrast.name,
                claim(contrast),
                number(values.mean()),
                ranged(values),
                " ".join(map(number, values)),
                _p(result.p),
                _p(adjusted),
                "yes" if shown else "no",
                f"{result.detectable:.2g}" if result.detectable > ROUNDING else "-",  # values that never vary
            ]
        )
    head = [question.name, "claim", "mean", "range", "kinds", "p", "p, Holm", "shown", "could have seen"]
    return table(head, rows)


def ranged(values: Sequence[float] | NDArray) -> str:
    """Format the smallest and the largest value."""
    return f"{number(np.min(values))} to {number(np.max(values))}"


def number(value: float) -> str:
    """Format two decimals, without the sign of a 0."""
    return f"{round(float(value), 2) + 0.0:.2f}"


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= LEAST_P else f"< {LEAST_P:g}"
