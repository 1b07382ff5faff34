"""Estimates as text: cells ``value [low, high]``, tables for a terminal and for Markdown."""

from collections.abc import Mapping, Sequence

from lightning_steer.escapes import for_markdown

Estimate = Mapping[str, float | None]
"""``{"value", "low", "high", "n"}`` as it stands in a report."""


def number(value: float | None) -> str:
    """Three decimals; one significant digit where that would hide a small number behind zeros."""
    if value is None or value != value:
        return "-"
    return f"{value:.0e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"


def cell(estimate: Estimate) -> str:
    """``value [low, high]``."""
    return f"{number(estimate['value'])} [{number(estimate['low'])}, {number(estimate['high'])}]"


def markdown(rows: Mapping[str, Mapping[str, Estimate]], columns: Sequence[str]) -> str:
    """``{row: {column: estimate}}`` as a Markdown table."""
    lines = [f"| | {' | '.join(map(for_markdown, columns))} |", f"|---|{'---|' * len(columns)}"]
    lines += [
        f"| {for_markdown(name)} | {' | '.join(cell(row[c]) if c in row else '-' for c in columns)} |"
        for name, row in rows.items()
    ]
    return "\n".join(lines) + "\n"


def text(rows: Mapping[str, Mapping[str, Estimate]], columns: Sequence[str]) -> str:
    """The same, aligned for a terminal."""
    grid = [
        ["", *columns],
        *([name, *(cell(row[c]) if c in row else "-" for c in columns)] for name, row in rows.items()),
    ]
    widths = [max(len(line[i]) for line in grid) for i in range(len(columns) + 1)]
    return "\n".join("  ".join(part.ljust(w) for part, w in zip(line, widths, strict=True)).rstrip() for line in grid)
