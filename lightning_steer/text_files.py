"""Text files of users: UTF-8, with or without a byte-order mark, and lines that end in a line feed and nothing else."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_steer.errors import UserError


def read(path: str | Path) -> str:
    r"""Return the text of a file; raise FileNotFoundError or ValueError in a sentence.

    Lines may end in CR LF, and a byte-order mark is dropped. Lines are split with ``split("\n")``, never with
    ``splitlines``, which also splits at characters such as U+2028 that JSON strings may hold.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give the path of a text file")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8, or name another file"
        ) from None
    if "\0" in text:
        raise UserError(f"{path} is binary (byte {content.index(0)} is 0), where a text file in UTF-8 was expected")
    return text.replace("\r\n", "\n")


def parse_json(text: str) -> Any:
    """Return the value of a JSON text; raise ValueError for keys that occur twice and for halves of characters.

    Python would take the last of equal keys, and no tokenizer can read half of a surrogate pair.
    """

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f"it has {key!r} twice")
        return dict(pairs)

    value = json.loads(text, object_pairs_hook=distinct)
    if "\\u" in text and any("\ud800" <= char <= "\udfff" for char in json.dumps(value, ensure_ascii=False)):
        raise UserError("it has half of a surrogate pair, such as \\ud800, which is no character")
    return value


def json_lines(path: str | Path, columns: Sequence[str] = ()) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a file with one JSON object a line, with their line numbers from 1; blank lines are skipped.

    Raises FileNotFoundError, or ValueError naming the line.

    Args:
        path: the file.
        columns: what each object must have.
    """
    rows, expected = [], "expected a JSON object" + (f" with {' and '.join(columns)}" if columns else "")
    for number, line in enumerate(read(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: {expected}, not {line[:60]!r} ({error})") from None
        if not isinstance(row, dict) or any(column not in row for column in columns):
            raise UserError(f"{path}, line {number}: {expected}, not {line[:60]!r}")
        rows.append((number, row))
    return rows
