"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]] = ()) -> list[str]:
    """Return the lines of a table, its cells in Markdown already: see :func:`lightning_steer.escapes.for_markdown`.

    Args:
        columns: their names; that of the first may be empty.
        rows: as many cells each.
    """
    head = " | ".join(columns).removeprefix(" ")  # an empty corner is written `| |`
    return [f"| {head} |", f"|{'---|' * len(columns)}", *(f"| {' | '.join(row)} |" for row in rows)]
