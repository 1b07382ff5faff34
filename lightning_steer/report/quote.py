"""Tables in documents, as runs have written them: ``python -m lightning_steer.report.quote docs/*.md``.

A document says where a table comes from, and by which words of its first line it is known::

    <!-- logs/mera/summary.md: SPI deployed -->
    (the table)
    <!-- end -->

What stands between the two lines is replaced by the first such table of that file, so no figure is copied by hand. A
few of its rows are taken by what stands in their first cell, or stands there before a colon::

    <!-- logs/mera/summary.md: SPI deployed: MERA / random direction -->

A file that is not there leaves the table as it is, and is named.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_steer.report.files import write_text

QUOTE = re.compile(r"(<!-- (?P<file>[\w/.-]+): (?P<words>.+?) -->\n)(?P<old>.*?)(<!-- end -->)", re.DOTALL)


def table(text: str, words: str, rows: Sequence[str] = ()) -> str:
    """The first Markdown table of a text whose head has these words, or these rows of it.

    Raises ValueError if there is no such table, or no such row in it.
    """
    for found in re.finditer(r"^\|.*\n(?:\|.*(?:\n|$))+", text, re.MULTILINE):
        head, line, *body = found.group().splitlines()
        if words in head:
            break
    else:
        raise ValueError(f"no table with {words!r} in its first line")
    names = [row.split("|")[1].split(":")[0].strip() for row in body]
    if absent := set(rows) - set(names):
        raise ValueError(f"the table {words!r} has no rows {sorted(absent)}, only {sorted(set(names))}")
    return "\n".join([head, line, *(row for row, name in zip(body, names, strict=True) if not rows or name in rows)])


def quoted(document: str, root: Path) -> tuple[str, list[str]]:
    """The document with its tables as they are now, and the files that are not there; raises ValueError, see above."""
    missing: list[str] = []

    def replace(match: re.Match[str]) -> str:
        source = root / match["file"]
        if not source.is_file():
            missing.append(match["file"])
            return match.group()
        words, _, rows = match["words"].partition(": ")
        try:
            found = table(source.read_text(encoding="utf-8"), words, rows.split(" / ") if rows else ())
            return f"{match[1]}{found}\n{match[5]}"
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None

    return QUOTE.sub(replace, document), missing


def main(given: list[str] | None = None) -> int:
    """Bring the tables of the documents that are named up to date."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.report.quote", description="Tables from logs.")
    parser.add_argument("documents", nargs="+", type=Path, help="Markdown files, for example docs/results.md")
    for path in parser.parse_args(given).documents:
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
