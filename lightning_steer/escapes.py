"""Texts that come from files, made harmless for what shows them: a terminal, Markdown, a spreadsheet."""

import re
import sys
import unicodedata

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""All but tab and newline: a terminal obeys some of them, and the last ones turn the direction of a line round."""


def for_terminal(text: str) -> str:
    """Return the text with control characters written out in hexadecimal digits."""
    return CONTROLS.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def say(text: object = "", end: str = "\n", error: bool = False) -> None:
    """Print a text in which a file may have a word; to stderr if it says what is wrong."""
    print(for_terminal(str(text)), end=end, file=sys.stderr if error else sys.stdout, flush=True)


def for_markdown(text: object, newline: str = " ") -> str:
    """Return the text for a cell or a line of Markdown: it ends no cell and no line, and makes no link, tag or code."""
    plain = for_terminal(str(text).replace("\r\n", "\n").replace("\r", "")).replace("\\", "\\\\")
    plain = re.sub(r"[|<`]", r"\\\g<0>", plain)
    plain = re.sub(r"\](?=[(\[:])", r"\\]", plain)  # a link, or where one leads to; [low, high] stays
    return plain.replace("\n", newline)


def for_spreadsheet(value: object) -> object:
    """Return the value of a CSV cell, a text that a spreadsheet would compute with a ' before it."""
    if not isinstance(value, str):
        return value
    text = for_terminal(value)
    first = unicodedata.normalize("NFKC", text.lstrip())[:1]  # full-width signs are signs too
    return f"'{text}" if (first and first in "=+-@\t") or value[:1] in ("\t", "\r", "\n") else text
