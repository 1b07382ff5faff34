"""Read pairs for a lint, which is told of repetitions instead of refusing them as a fit does."""

from pathlib import Path
from typing import Any

from lightning_steer.data.behaviours.examples import NEGATIVE, POSITIVE, objects
from lightning_steer.errors import UserError
from lightning_steer.lint.records import Pair

FORMS = {("prompt", "positive", "negative"): {"behaviour", "id"}, ("question", POSITIVE, NEGATIVE): set[str]()}
"""Columns of pairs, and of CAA's files, with the other columns that each may have."""


def read_pairs(path: Path) -> list[Pair]:
    """Return the pairs of a file of JSON lines, of a JSON list, or of a CSV file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the example that is no pair, and what was expected.
    """
    pairs: list[Pair] = []
    for number, row in objects(path):
        where = f"{path}, example {number}"
        form = _form(where, row)
        texts = [row[column] for column in form]
        for column, text in zip(form, texts, strict=True):
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{where}: its {column} is {str(text)[:40]!r}, where a text was expected")
        pairs.append((texts[0], texts[1], texts[2]))
    return pairs


def _form(where: str, row: Any) -> tuple[str, str, str]:
    columns = set(row) if isinstance(row, dict) else set[str]()
    for form, more in FORMS.items():
        if set(form) <= columns <= {*form, *more}:
            return form
    had = (", ".join(sorted(columns)) or "an empty one") if isinstance(row, dict) else str(row)[:40]
    expected = " or with ".join(map(", ".join, FORMS))
    raise UserError(f"{where} is no pair: expected an object with {expected}, not {had}")
