"""Tables of plain texts as Markdown."""

from collections.abc import Iterable, Sequence

from lightning_steer import markdown
from lightning_steer.escapes import for_markdown


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table, and an empty line after it."""
    head, *cells = [[for_markdown(cell) for cell in row] for row in (columns, *rows)]
    return [*markdown.table(head, cells), ""]
