"""Texts side by side in lines of a given width, as many cells wide as a terminal shows them."""

import unicodedata
from collections.abc import Sequence
from itertools import zip_longest

GAP = " │ "
NARROWEST = 18
"""Cells below which columns cannot be read, and stand below each other instead."""


def cells(text: str) -> int:
    """Count the cells that a terminal gives to a text: 2 to wide characters, none to combining ones."""
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrap(text: str, width: int) -> list[str]:
    """Break a text into lines of at most ``width`` cells, at blanks where there are some."""
    lines = []
    for paragraph in text.expandtabs(4).split("\n"):
        line, used = "", 0
        for word in paragraph.split(" "):
            size = cells(word)
            if line and used + 1 + size <= width:
                line, used = f"{line} {word}", used + 1 + size
                continue
            if line:
                lines.append(line)
            *whole, line = _pieces(word, width)
            lines += whole
            used = cells(line)
        lines.append(line)
    return [line.rstrip() for line in lines]


def _pieces(word: str, width: int) -> list[str]:
    """Cut a word that is longer than a line."""
    pieces, piece, used = [], "", 0
    for character in word:
        if used + _cells(character) > width:
            pieces.append(piece)
            piece, used = "", 0
        piece, used = piece + character, used + _cells(character)
    return [*pieces, piece]


def side_by_side(labels: Sequence[str], texts: Sequence[str], width: int) -> list[str]:
    """Return the lines of a table with one column for each text; below each other where the columns were too narrow."""
    column = column_width(len(texts), width)
    if column < NARROWEST:
        blocks = zip(labels, texts, strict=True)
        return [line for label, text in blocks for line in (*wrap(f"{label}:", width), *wrap(text, width), "")]
    columns = [[*wrap(label, column), *wrap(text, column)] for label, text in zip(labels, texts, strict=True)]
    return [GAP.join(_padded(line, column) for line in row).rstrip() for row in zip_longest(*columns, fillvalue="")]


def column_width(columns: int, width: int) -> int:
    """Return the cells of each of so many columns."""
    return (width - len(GAP) * (columns - 1)) // columns


def _padded(line: str, width: int) -> str:
    return line + " " * (width - cells(line))
