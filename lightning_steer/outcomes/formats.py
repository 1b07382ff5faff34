"""Tables as header and rows: CSV, tab-separated, JSON lines, Parquet and data frames. No cell is ever evaluated."""

import csv
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_steer import text_files
from lightning_steer.errors import UserError

LARGEST_CELL = 2**27
Record = tuple[int, Sequence[Any]]
"""The number of a row and its cells."""


def reader(path: Path) -> Callable[[Path], tuple[list[str], Iterator[Record]]]:
    """Return what reads a file of this kind: its header and its rows; raises ValueError for other kinds."""
    kinds = {
        ".csv": _of_csv, ".tsv": _of_csv, ".jsonl": of_json_lines, ".ndjson": of_json_lines,
        ".parquet": _of_parquet,
    }  # fmt: skip
    read = kinds.get(path.suffix.lower())
    if read is None:
        raise UserError(f"{path} ends in none of {', '.join(kinds)}: name a table of one of these kinds")
    return read


def _of_csv(path: Path) -> tuple[list[str], Iterator[Record]]:
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    lines = csv.reader(io.StringIO(text_files.read(path), newline=""), delimiter=separator, strict=True)
    records = _csv_records(lines, path.name)
    header = list(next(records, (0, []))[1])
    if len(header) == 1:
        for found_separator, label in ((";", "semicolons"), ("\t", "tabs"), (",", "commas"), ("|", "bars")):
            if found_separator in header[0]:
                raise UserError(
                    f"{path.name}, row 1: the header {header[0][:60]!r} is separated by {label}, where "
                    f"{'tabs' if separator == chr(9) else 'commas'} were expected: save it so"
                )
    return header, records


def _csv_records(lines: Any, name: str) -> Iterator[Record]:
    """Yield non-blank rows with the number of their first line."""
    start, limit = 1, csv.field_size_limit(LARGEST_CELL)
    try:
        while True:
            try:
                cells = next(lines)
            except StopIteration:
                return
            except csv.Error as error:
                raise UserError(f"{name}, row {start}: not CSV ({error}): is a quote left open?") from None
            if any(cell.strip() for cell in cells):
                yield start, cells
            start = lines.line_num + 1
    finally:
        csv.field_size_limit(limit)


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers."""
    return [(i, line) for i, line in enumerate(text_files.read(path).split("\n"), 1) if line.strip()]


def of_json_lines(path: Path) -> tuple[list[str], Iterator[Record]]:
    """Return header and rows of a file with a JSON object a line."""
    lines = numbered_lines(path)
    header: list[str] = []
    if lines:
        header = list(json_object(path.name, *lines[0]))
    return header, _json_records(path.name, lines, header)


def json_object(name: str, line: int, text: str) -> dict[str, Any]:
    """Return the object of a line; raises ValueError naming file and line."""
    row = json_value(where := f"{name}, row {line}", text)
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected a JSON object, not {text[:60]!r}")
    return row


def json_value(where: str, text: str) -> Any:
    """Return the value of a line; raises ValueError naming where it stands."""
    try:
        return text_files.parse_json(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not a JSON object ({error}): {text[:60]!r}") from None


def _json_records(name: str, lines: list[tuple[int, str]], header: list[str]) -> Iterator[Record]:
    for line, text in lines:
        row = json_object(name, line, text)
        if row.keys() != set(header):
            key = sorted(row.keys() ^ set(header))[0]
            raise UserError(
                f"{name}, row {line}: {key[:40]!r} is {'not ' if key in header else ''}there, unlike in the first row: "
                "every row needs the same keys"
            )
        yield line, [row[column] for column in header]


def _of_parquet(path: Path) -> tuple[list[str], Iterator[Record]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give the path of a table")
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(f"{path}: reading Parquet needs pyarrow: install it, or save the table as CSV") from None
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} is not a Parquet file, or a damaged one ({str(error)[:100]})") from None
    columns = [table.column(name).to_pylist() for name in table.column_names]
    return list(table.column_names), enumerate(zip(*columns, strict=True), 1)


def of_frame(frame: Any) -> tuple[list[str], Iterator[Record]]:
    """Return header and rows of a data frame of pandas; raises ValueError for anything else."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(frame, pandas.DataFrame):
        raise UserError(f"outcomes are paths or data frames of pandas, not {type(frame).__name__}")
    columns = [frame.iloc[:, i].tolist() for i in range(frame.shape[1])]
    return [str(name) for name in frame.columns], enumerate(zip(*columns, strict=True), 1)
