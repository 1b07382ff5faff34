"""Rows of a long table as they are read: names as numbers, and where each row stands."""

import math
import re
from array import array
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LONGEST = 1000
"""Characters of a name; a longer one is a text that went into the wrong column."""
NAMES = ("item", "setting", "measure", "cluster", "group", "seed", "judge", "position")
"""Columns that hold names, in the order in which rows keep them."""


class AnswerNames(NamedTuple):
    """The two measures that a table of multiple-choice answers holds."""

    matching: str
    """Probability of the matching answer, among the answers."""
    mass: str
    """Probability of all answers together."""


class Rows:
    """Rows as they are read: names as numbers, and where each row stands."""

    def __init__(self) -> None:
        self.codes = {name: array("q") for name in NAMES}
        self.names: dict[str, dict[str, int]] = {name: {} for name in NAMES}
        self.values, self.truths, self.lines, self.files = array("d"), array("b"), array("q"), array("q")
        self.sources: list[str] = []
        self.ranges: dict[str, tuple[float, float]] = {}
        """Of measures whose range the format of their file fixes."""
        self.answers: list[AnswerNames] = []
        """Names of the measures of each table of answers."""

    def __len__(self) -> int:
        return len(self.values)

    def source(self, name: str) -> None:
        """Begin another file."""
        self.sources.append(name)

    def add(self, line: int, names: Iterable[str | None], value: float, truth: bool) -> None:
        """Add a row.

        Args:
            line: number of its line, or row.
            names: by the order of :data:`NAMES`; None where its file has no such column.
            value: a finite number.
            truth: it was written as true or false.
        """
        for column, name in zip(NAMES, names, strict=True):
            known = self.names[column]
            self.codes[column].append(-1 if name is None else known.setdefault(name, len(known)))
        self.values.append(value)
        self.truths.append(truth)
        self.lines.append(line)
        self.files.append(len(self.sources) - 1)

    def where(self, row: int) -> str:
        """Return where a row stands."""
        return f"{self.sources[self.files[row]]}, row {self.lines[row]}"

    def column(self, name: str) -> NDArray:
        """Return ``[rows]`` numbers of the names in a column, -1 where there is none."""
        return np.frombuffer(self.codes[name], dtype=np.int64)

    def listed(self, name: str) -> list[str]:
        """Return the names of a column by number."""
        return list(self.names[name])


def check_name(text: str, where: str, column: str) -> str:
    """Return a name; raises ValueError for an empty, an overlong or a broken one."""
    if not text:
        raise ValueError(f"{where}, column {column}: it is empty, where a name was expected")
    if len(text) > LONGEST:
        raise ValueError(
            f"{where}, column {column}: a name of {len(text):,} characters, at most {LONGEST:,} are read: give items "
            "short names"
        )
    if "\n" in text or "\r" in text:
        raise ValueError(f"{where}, column {column}: the name {text[:40]!r} has a line break: is a quote left open?")
    return text


NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def number(text: str) -> float | None:
    """Return the finite number that a text is, in plain digits; None if it is none. Nothing is evaluated."""
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def written(strength: float) -> str:
    """Return a strength as text that no other strength has: in a table it is known by it."""
    return f"{strength:.0f}" if float(strength).is_integer() and abs(strength) < 1e15 else repr(float(strength))
