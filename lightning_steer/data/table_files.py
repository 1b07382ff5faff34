"""Read rows of a local file or folder, or of a hub data set, as dictionaries; no code of a data set is run."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_steer import text_files
from lightning_steer.errors import UserError

KINDS = ".csv, .tsv, .jsonl, .parquet, or a folder written by datasets' save_to_disk"


def read_rows(path: str | Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Read all rows of a file.

    In ``.csv`` files fields may be quoted; in ``.tsv`` files, and those without a suffix, quotes are text.

    Args:
        path: CSV, TSV, JSON lines, Parquet, or a folder written by ``save_to_disk``.
        columns: names of the columns where the file has no header line; CSV and TSV only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of an unknown kind, damaged, or empty.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no data file {path}: give a local path, or leave it out to take the hub's")
    if columns is not None and path.suffix in (".jsonl", ".parquet"):
        raise UserError(f"{path} names its columns itself: leave the list of columns out")
    try:
        rows = _read(path, columns)
    except (csv.Error, OSError) as error:
        raise UserError(f"{path} cannot be read as {path.suffix or 'a table'}: {error}") from error
    if not rows:
        raise UserError(f"{path} holds no rows")
    return rows


def _read(path: Path, columns: Sequence[str] | None) -> list[dict[str, Any]]:
    if path.is_dir():
        from datasets import Dataset, load_from_disk

        dataset = load_from_disk(str(path))
        if not isinstance(dataset, Dataset):
            splits = ", ".join(map(str, dataset))
            raise UserError(f"{path} holds several splits ({splits}): give the folder of one of them")
        return [dict(row) for row in dataset]  # type: ignore[call-overload]
    if path.suffix == ".parquet":
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_table(path).to_pylist()
        except (ValueError, OSError) as error:  # pyarrow's errors are of these kinds
            raise UserError(f"{path} is damaged, or no Parquet file ({str(error).splitlines()[0][:160]})") from error
    if path.suffix == ".jsonl":
        return [row for _, row in text_files.json_lines(path)]
    if path.suffix not in (".csv", ".tsv", ""):
        raise UserError(f"{path} is of an unknown kind {path.suffix!r}: known are {KINDS}")
    dialect = {} if path.suffix == ".csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    reader = csv.reader(io.StringIO(text_files.read(path), newline=""), **dialect, strict=True)
    lines = [(number, line) for number, line in enumerate(reader, 1) if line]
    if columns is None:
        columns, lines = lines[0][1] if lines else [], lines[1:]
    for column in columns:
        if list(columns).count(column) > 1:
            raise UserError(f"{path} has the column {column!r} twice: {', '.join(columns)}")
    for number, line in lines:
        if len(line) != len(columns):
            raise UserError(f"{path} has {len(line)} fields in row {number}, not {len(columns)}: {', '.join(columns)}")
    return [dict(zip(columns, line, strict=True)) for _, line in lines]


def hub_rows(name: str, config: str | None, split: str) -> list[dict[str, Any]]:
    """Load all rows of a split from the hub or its local cache; raises ValueError if that fails."""
    from datasets import load_dataset

    try:
        return [dict(row) for row in load_dataset(name, config, split=split)]  # type: ignore[call-overload]
    except Exception as error:  # any error of the hub, the network or the format
        message = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(
            f"the data set {name} cannot be had from the hub ({message}): check the network, or give a local file"
        ) from error
