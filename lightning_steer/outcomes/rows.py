"""Rows of a long table as they are read: names as numbers, and the position of each row."""

import math
import re
from array import array
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_steer.errors import UserError

LONGEST = 1000
"""Largest length of a name; a longer one is a text in the wrong column."""
NAMES = ("item", "setting", "measure", "cluster", "group", "seed", "judge", "position")
"""Columns that hold names, in the order of storage."""


class AnswerNames(NamedTuple):
    """The two measures of a table of multiple-choice answers."""

    matching: str
    """Probability of the matching answer, among the answers."""
    mass: str
    """Probability of all answers together."""


class Rows:
    """Rows as they are read: names as numbers, and the position of each row."""

    def __init__(self) -> None:
        self.codes = {name: array("q") for name in NAMES}
        self.names: dict[str, dict[str, int]] = {name: {} for name in NAMES}
        self.values, self.truths, self.lines, self.files = array("d"), array("b"), array("q"), array("q")
        self.sources: list[str] = []
        self.ranges: dict[str, tuple[float, float]] = {}
        """Ranges of measures whose file format fixes them."""
        self.answers: list[AnswerNames] = []
        """Names of the measures of each table of answers."""

    def __len__(self) -> int:
        return len(self.values)

    def source(self, name: str) -> None:
        """Start another file."""
        self.sources.append(name)

    def add(self, line: int, names: Iterable[str | None], value: float, truth: bool) -> None:
        """Add a row.

        Args:
            line: number of its line, or row.
            names: in the order of :data:`NAMES`; None if its file has no such column.
            value: a finite number.
            truth: whether it was written as true or false.
        """
        for column, name in zip(NAMES, names, strict=True):
            codes = self.names[column]
            self.codes[column].append(-1 if name is None else codes.setdefault(name, len(codes)))
        self.values.append(value)
        self.truths.append(truth)
        self.lines.append(line)
        self.files.append(len(self.sources) - 1)

    def where(self, row: int) -> str:
        """Return the position of a row as text."""
        return f"{self.sources[self.files[row]]}, row {self.lines[row]}"

    def column(self, name: str) -> NDArray:
        """Return the codes ``[rows]`` of the names in a column, -1 if there is none."""
        return np.frombuffer(self.codes[name], dtype=np.int64)

    def listed(self, name: str) -> list[str]:
        """Return the names of a column by code."""
        return list(self.names[name])


def check_name(text: str, where: str, column: str) -> str:
    """Return a name; raise ValueError if it is empty, too long or contains a line break."""
    if not text:
        raise UserError(f"{where}, column {column}: it is empty, where a name was expected")
    if len(text) > LONGEST:
        raise UserError(
            f"{where}, column {column}: a name of {len(text):,} characters, at most {LONGEST:,} are read: give items "
            "short names"
        )
    if "\n" in text or "\r" in text:
        raise UserError(f"{where}, column {column}: the name {text[:40]!r} has a line break: is a quote left open?")
    return text


NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def number(text: str) -> float | None:
    """Parse a finite number in plain digits; None if the text is not one. Nothing is evaluated."""
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def written(strength: float) -> str:
    """Return a unique text for a strength, which identifies it in tables."""
    return f"{strength:.0f}" if float(strength).is_integer() and abs(strength) < 1e15 else repr(float(strength))
