"""Estimates as text: cells ``value [low, high]``, tables for a terminal and for Markdown, footnotes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_steer.escapes import for_markdown
from lightning_steer.markdown import table
from lightning_steer.statistics.intervals import UNIT_RANGE

Estimate = Mapping[str, Any]
"""``{"value", "low", "high", "n", "clusters", "how"}`` as in a report; random draws also have ``p``."""
FIXED = "by definition"
RANGE = "range of random draws"


def number(value: float | None) -> str:
    """Format three decimals, or one significant digit for numbers that would become zero."""
    if value is None or value != value:
        return "-"
    return f"{value:.0e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"


def cell(estimate: Estimate) -> str:
    """Format ``value [low, high]``, for random draws ``median (minimum to maximum; p)``, else the value alone."""
    value, low, high = (number(estimate[key]) for key in ("value", "low", "high"))
    if _is_range(estimate) or estimate.get("how") == UNIT_RANGE:
        p = estimate.get("p")
        return f"{value} ({low} to {high})" if p is None or p != p else f"{value} ({low} to {high}; p {p:.3f})"
    return value if low == high == "-" else f"{value} [{low}, {high}]"


def _is_range(estimate: Estimate) -> bool:
    return estimate.get("how") == RANGE or estimate.get("p") is not None


def counted(estimate: Estimate) -> str:
    """Format ``100 held-out rows``, or ``100 held-out rows in 10 clusters``."""
    n, clusters = estimate["n"], estimate.get("clusters")
    return f"{'-' if n is None else format(n, ',.0f')} held-out rows" + (
        f" in {clusters:,.0f} clusters" if clusters else ""
    )


def footnotes(rows: Iterable[Mapping[str, Estimate]]) -> list[str]:
    """State how a table's intervals were computed, each method once, and why some are missing.

    Args:
        rows: ``{column: estimate}`` of each row.
    """
    columns_of: dict[str, list[str]] = {}
    for row in rows:
        for name, estimate in row.items():
            how = estimate.get("how")
            if how and not _is_range(estimate) and name not in columns_of.setdefault(how, []):
                columns_of[how].append(name)
    other_kinds = [how for how in columns_of if how.startswith("not an interval: ")]
    methods = [
        (how, names)
        for how, names in columns_of.items()
        if not how.startswith(("none: ", *other_kinds)) and how != FIXED
    ]
    missing = [(how, names) for how, names in columns_of.items() if how.startswith("none: ")]
    notes = []
    if methods:
        notes.append("Intervals (95 %): " + "; ".join(f"{how} for {', '.join(names)}" for how, names in methods) + ".")
    notes += [f"No interval for {', '.join(names)}: {how.removeprefix('none: ')}." for how, names in missing]
    notes += [f"Of {', '.join(columns_of[how])}: {how.removeprefix('not an interval: ')}." for how in other_kinds]
    if FIXED in columns_of:
        notes.append(f"Known by definition where nothing is steered: {', '.join(columns_of[FIXED])}.")
    return notes


def markdown(rows: Mapping[str, Mapping[str, Estimate]], columns: Sequence[str]) -> str:
    """Return ``{row: {column: estimate}}`` as a Markdown table."""
    lines = [[for_markdown(name), *(cell(row[c]) if c in row else "-" for c in columns)] for name, row in rows.items()]
    return "\n".join(table(["", *map(for_markdown, columns)], lines)) + "\n"


def text(rows: Mapping[str, Mapping[str, Estimate]], columns: Sequence[str]) -> str:
    """Return the same table, aligned for a terminal."""
    grid = [
        ["", *columns],
        *([name, *(cell(row[c]) if c in row else "-" for c in columns)] for name, row in rows.items()),
    ]
    widths = [max(len(line[i]) for line in grid) for i in range(len(columns) + 1)]
    return "\n".join(
        "  ".join(cell_text.ljust(w) for cell_text, w in zip(line, widths, strict=True)).rstrip() for line in grid
    )
