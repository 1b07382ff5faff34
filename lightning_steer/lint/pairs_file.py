"""Read pairs for a lint, which is told of repetitions instead of refusing them as a fit does."""

from pathlib import Path
from typing import Any

from lightning_steer.data.behaviours.examples import NEGATIVE, PAIR, POSITIVE, objects
from lightning_steer.errors import UserError
from lightning_steer.lint.records import Pair
from lightning_steer.pair_texts import read_two_texts

FORMS = {PAIR: {"prompt", "behaviour", "id"}, ("question", POSITIVE, NEGATIVE): set[str]()}
"""Columns of pairs, and of CAA's files, with the other columns that each may have."""


def read_pairs(path: Path, negatives: Path | None = None) -> list[Pair]:
    """Return the pairs of a file of JSON lines, of a JSON list, or of a CSV file; or of two text files, line by line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the example that is no pair, and what was expected.
    """
    if negatives is not None:
        return [(prompt, positive, negative) for prompt, positive, negative in read_two_texts(path, negatives)]
    pairs: list[Pair] = []
    for number, row in objects(path):
        where = f"{path}, example {number}"
        form = _form(where, row)
        for column in form:
            if not isinstance(row[column], str) or not row[column].strip():
                raise UserError(f"{where}: its {column} is {str(row[column])[:40]!r}, where a text was expected")
        prompt = row[form[0]] if len(form) > len(PAIR) else row.get("prompt", "")
        if not isinstance(prompt, str):
            raise UserError(f"{where}: its prompt is {str(prompt)[:40]!r}, where a text was expected")
        pairs.append((prompt, row[form[-2]], row[form[-1]]))
    return pairs


def _form(where: str, row: Any) -> tuple[str, ...]:
    columns = set(row) if isinstance(row, dict) else set[str]()
    for form, more in FORMS.items():
        if set(form) <= columns <= {*form, *more}:
            return form
    had = (", ".join(sorted(columns)) or "an empty one") if isinstance(row, dict) else str(row)[:40]
    expected = " or with ".join(map(", ".join, FORMS))
    raise UserError(f"{where} is no pair: expected an object with {expected}, not {had}")
