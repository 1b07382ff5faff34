"""Parse one cell of a table as a name or a value, or raise with its position."""

from typing import Any

from lightning_steer.errors import UserError
from lightning_steer.outcomes.rows import number

TRUTHS = {"true": 1.0, "false": 0.0}


def name_of(cell: Any, name: str, line: int, column: str) -> str:
    """Return a name that is written as a number: a whole number, or any number for settings."""
    where = f"{name}, row {line}, column {column}"
    if cell is None:
        raise UserError(f"{where}: it is empty, where a name was expected")
    if isinstance(cell, bool) or not isinstance(cell, (int, float)):
        raise UserError(f"{where}: {str(cell)[:40]!r} is neither a text nor a number")
    if cell != cell or cell in (float("inf"), float("-inf")):
        raise UserError(f"{where}: it is {cell}, where a name or a finite number was expected")
    return f"{cell:.0f}" if cell == int(cell) and abs(cell) < 1e15 else repr(cell)


def value_of(cell: Any, where: str) -> tuple[float, bool]:
    """Return a finite number, and whether it was written as true or false."""
    if isinstance(cell, str):
        text = cell.strip()
        if text.lower() in TRUTHS:
            return TRUTHS[text.lower()], True
        value = number(text)
        if value is not None:
            return value, False
        if not text:
            raise UserError(f"{where}: it is empty: leave an item without an outcome out at every setting")
        if text.lower().lstrip("+-") in ("nan", "inf", "infinity", "na", "n/a", "none", "null"):
            raise UserError(f"{where}: {text!r} is no finite number: leave such an item out at every setting")
        raise UserError(
            f"{where}: {text[:40]!r}{f' ({len(text):,} characters)' if len(text) > 40 else ''} is not a number"
            + (": write decimals with a point" if number(text.replace(",", ".")) is not None else "")
        )
    if isinstance(cell, bool):
        return float(cell), True
    if cell is None:
        raise UserError(f"{where}: it is empty: leave an item without an outcome out at every setting")
    if not isinstance(cell, (int, float)):
        raise UserError(f"{where}: {str(cell)[:40]!r} is not a number")
    try:
        value = float(cell)
    except OverflowError:
        value = float("inf")
    if value != value or value in (float("inf"), float("-inf")):
        raise UserError(f"{where}: it is {str(cell)[:20]}, no finite number: leave such an item out at every setting")
    return value, False
