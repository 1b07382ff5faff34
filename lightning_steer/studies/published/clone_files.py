"""Read the JSON files of a clone, whose faults are named in one sentence, and write tables as CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_steer import text_files


def read_json(path: Path) -> Any:
    """Return what a file holds; raises FileNotFoundError, or ValueError if it is not JSON."""
    try:
        return text_files.parse_json(text_files.read(path))
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON ({error})") from None


def rows_of(value: Any, path: Path) -> list[dict[str, Any]]:
    """Return a list of objects as it is; raises ValueError for anything else."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise ValueError(f"{path.name} holds no list of items, as the repository writes it")
    return value


def part_of(value: Any, name: str, path: Path) -> Any:
    """Return the entry of an object; raises ValueError if it has none of this name."""
    if not isinstance(value, Mapping) or name not in value:
        raise ValueError(f"{path.name} has no {name!r}, as the repository writes it")
    return value[name]


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV, with lines that end in a line feed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
