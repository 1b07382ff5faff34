"""Copy tables from logs into documents: ``python -m lightning_steer.report.quote docs/*.md``.

A document names a table's file, and words of its first line that identify it::

    <!-- logs/mera/summary.md: SPI deployed -->
    (the table)
    <!-- end -->

The text between the two lines is replaced by the first such table of that file, so no figure is copied by hand. A
few of its rows are selected by their first cell, or the part of it before a colon::

    <!-- logs/mera/summary.md: SPI deployed: MERA / random direction -->

If a file is missing, its table stays as it is and the file is named.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_steer.errors import UserError
from lightning_steer.report.files import write_text

QUOTE = re.compile(r"(<!-- (?P<file>[\w/.-]+): (?P<words>.+?) -->\n)(?P<old>.*?)(<!-- end -->)", re.DOTALL)


def table(text: str, words: str, rows: Sequence[str] = ()) -> str:
    """Return the first Markdown table whose head contains these words, or these rows of it.

    Raises ValueError if there is no such table, or no such row in it.
    """
    for match in re.finditer(r"^\|.*\n(?:\|.*(?:\n|$))+", text, re.MULTILINE):
        head, line, *body = match.group().splitlines()
        if words in head:
            break
    else:
        raise UserError(f"no table with {words!r} in its first line")
    names = [row.split("|")[1].split(":")[0].strip() for row in body]
    if absent := set(rows) - set(names):
        raise UserError(f"the table {words!r} has no rows {sorted(absent)}, only {sorted(set(names))}")
    return "\n".join([head, line, *(row for row, name in zip(body, names, strict=True) if not rows or name in rows)])


def quoted(document: str, root: Path) -> tuple[str, list[str]]:
    """Return the document with current tables, and the missing files; raise ValueError, see :func:`table`."""
    missing: list[str] = []

    def replace(match: re.Match[str]) -> str:
        source = root / match["file"]
        if not source.is_file():
            missing.append(match["file"])
            return match.group()
        words, _, rows = match["words"].partition(": ")
        try:
            current = table(source.read_text(encoding="utf-8"), words, rows.split(" / ") if rows else ())
            return f"{match[1]}{current}\n{match[5]}"
        except ValueError as error:
            raise UserError(f"{source}: {error}") from None

    return QUOTE.sub(replace, document), missing


def main(argv: list[str] | None = None) -> int:
    """Update the tables of the named documents."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.report.quote", description="Tables from logs.")
    parser.add_argument("documents", nargs="+", type=Path, help="Markdown files, for example docs/results.md")
    for path in parser.parse_args(argv).documents:
        try:
            text, missing = quoted(path.read_text(encoding="utf-8"), Path())
        except (OSError, ValueError) as error:
            print(f"lightning_steer: {path}: {error}", file=sys.stderr)
            return 2
        write_text(path, text)
        print(f"{path}: " + (f"left as they are, without {', '.join(missing)}" if missing else "up to date"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
