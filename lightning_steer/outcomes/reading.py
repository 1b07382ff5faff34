"""Read outcomes from tables: which column is what, and what its cells say."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lightning_steer.errors import UserError
from lightning_steer.outcomes import answers, formats
from lightning_steer.outcomes.cells import name_of, value_of
from lightning_steer.outcomes.formats import Record
from lightning_steer.outcomes.harness import is_samples, read_samples
from lightning_steer.outcomes.rows import NAMES, Rows, check_name

OTHER_NAMES = {"strength": "setting"}
"""Alternative names of columns."""
NEEDED = ("item", "setting", "value")


def read(sources: Sequence[Any], cluster: str | None = None) -> tuple[Rows, list[str]]:
    """Return the rows of all sources, and the columns that were not read.

    Args:
        sources: paths, ``MEASURE=path`` for a file without a column ``measure``, ``SETTING=path`` for a sample log of
            lm-evaluation-harness, folders of this project's own runs, or data frames.
        cluster: the column that holds clusters, if it is not called ``cluster``.

    Raises:
        ValueError: naming the file, the row and the column.
        FileNotFoundError: there is no such file.
    """
    rows, unread = Rows(), []
    for source in sources:
        if isinstance(source, (str, Path)):
            measure, path = _named(str(source))
            path = _of_run(path) if path.is_dir() else path
            samples = _samples(path)
            if samples and cluster is not None:
                raise UserError(
                    f"{path.name} is a sample log of lm-evaluation-harness, which has no column {cluster!r}"
                )
            if samples:
                rows.source(f"{measure}={path.name}")
                unread += read_samples(path, measure, samples, rows)
                continue
            name, (header, records) = path.name, formats.reader(path)(path)
        else:
            measure, name, (header, records) = None, "data frame", formats.of_frame(source)
            path = Path("data frame")
        rows.source(name)
        if answers.is_answers(header):
            answer_names = answers.names(measure)
            header, records = answers.long_rows(header, records, name, answer_names)
            rows.answers.append(answer_names)
            rows.ranges |= dict.fromkeys(answer_names, (0.0, 1.0))
        places, unread_columns = _columns(header, name, cluster)
        unread += [f"{column!r} of {name}" for column in unread_columns]
        _read_into(
            rows, records, places, len(header), name, measure or (path.stem if "measure" not in places else None)
        )
    return rows, unread


def _named(source: str) -> tuple[str | None, Path]:
    name, sign, path = source.partition("=")
    if not sign or Path(source).is_file():
        return None, Path(source)
    if not name.strip():
        raise UserError(f"{source!r} names no measure before '=': write MEASURE=path")
    return name.strip(), Path(path)


def _of_run(folder: Path) -> Path:
    """Return the outcomes that a test has written beside its report."""
    path = folder / "outcomes.parquet"
    if not path.is_file():
        raise UserError(f"{folder} holds no {path.name}: name a table, or the folder of a run that was tested")
    return path


def _samples(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a sample log of lm-evaluation-harness; an empty list for other files."""
    if formats.reader(path) is not formats.of_json_lines:
        return []
    lines = formats.numbered_lines(path)
    return lines if lines and is_samples(formats.json_object(path.name, *lines[0])) else []


def _columns(header: Sequence[str], name: str, cluster: str | None) -> tuple[dict[str, int], list[str]]:
    """Return the index of each column that is read, and the names of the others."""
    places: dict[str, int] = {}
    others: list[str] = []
    for place, column in enumerate(header):
        plain = str(column).strip()
        target = "cluster" if plain == cluster else OTHER_NAMES.get(plain.lower(), plain.lower())
        if target == "cluster" and cluster is not None and plain != cluster:
            target = plain  # another column is the cluster
        if target not in (*NAMES, "value"):
            others.append(plain[:40])
        elif target in places:
            raise UserError(
                f"{name}, row 1: the columns {header[places[target]]!r} and {plain!r} are both the {target}"
            )
        else:
            places[target] = place
    for plain in others:
        suggestions = difflib.get_close_matches(plain.lower(), [*NAMES, *OTHER_NAMES, "value"], n=1, cutoff=0.8)
        if suggestions:
            raise UserError(
                f"{name}, row 1: column {plain!r} is not known: did you mean {suggestions[0]!r}? Else rename it"
            )
    missing = [column for column in NEEDED if column not in places]
    if missing:
        header_text = ", ".join(str(column)[:40] for column in header) or "nothing"
        raise UserError(
            f"{name}, row 1: the header lacks {' and '.join(missing)}; it has {header_text}: a long table has the "
            "columns item, setting, measure, value"
        )
    if cluster is not None and "cluster" not in places:
        raise UserError(f"{name}, row 1: there is no column {cluster!r} for clusters; it has {', '.join(header)}")
    return places, others


def _read_into(
    rows: Rows, records: Iterator[Record], places: dict[str, int], width: int, name: str, measure: str | None
) -> None:
    columns = [(column, places.get(column)) for column in NAMES]
    parsed: dict[str, tuple[float, bool]] = {}  # most tables have few distinct values
    names: dict[str, set[Any]] = {column: set() for column in NAMES}
    value_at = places["value"]
    for line, cells in tqdm(records, desc=name, unit=" rows", unit_scale=True, disable=None, delay=1):
        if len(cells) != width:
            raise UserError(f"{name}, row {line}: {len(cells)} cells, where the header has {width} columns")
        row_names = []
        for column, place in columns:
            if place is None:
                row_names.append(measure if column == "measure" else None)
                continue
            cell = cells[place]
            text = cell.strip() if type(cell) is str else name_of(cell, name, line, column)
            if text not in names[column]:
                check_name(text, f"{name}, row {line}", column)
                names[column].add(text)
            row_names.append(text)
        cell = cells[value_at]
        value = parsed.get(cell) if type(cell) is str else None
        if value is None:
            value = value_of(cell, f"{name}, row {line}, column value")
            if type(cell) is str and len(parsed) < 100_000:
                parsed[cell] = value
        rows.add(line, row_names, *value)
