"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]] = ()) -> list[str]:
    """Return the lines of a table, its cells in Markdown already: see :func:`lightning_steer.escapes.for_markdown`.

    Args:
        columns: their names; a name may be empty.
        rows: as many cells each.
    """
    head = "".join(f" {name} |" if name else " |" for name in columns)
    return [f"|{head}", f"|{'---|' * len(columns)}", *(f"| {' | '.join(row)} |" for row in rows)]
