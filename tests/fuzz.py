"""Damaged and hostile files: bytes changed at random, and JSON changed where a reader looks."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 1 << 31, 1 << 63, 1 << 64, 10**400, -0.5, 1e308, float("nan"), float("inf"), "",
    "x", "0" * 2000, "../../elsewhere", "\ud800", [], {}, [[]], {"": 0}, [None] * 20, {"value": "x"},
)  # fmt: skip
EDGES = [0, 1, 2, 7, 8, 31, 32, 255, 256, 65535, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1]


def bytes_changed(content: bytes, chance: random.Random) -> bytes:
    """One to four changes: bits, lengths, pieces lost, doubled, moved or made up."""
    new = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(new) + 1) if chance.random() < 0.5 else chance.randrange(min(len(new), 400) + 1)
        kind = chance.randrange(7)
        if kind == 0 and place < len(new):
            new[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del new[place:]
        elif kind == 2:
            del new[place : place + chance.randint(1, 40)]
        elif kind == 3:
            new[place:place] = chance.randbytes(chance.randint(1, 40))
        elif kind == 4:
            size = chance.choice([1, 2, 4, 8])
            new[place : place + size] = (chance.choice(EDGES) % (1 << 8 * size)).to_bytes(size, "little")
        elif kind == 5:
            other = chance.randrange(len(new) + 1)
            new[place:place] = new[other : other + chance.randint(1, 80)]
        else:
            new[place : place + 8] = chance.randbytes(8)
    return bytes(new)


def value_changed(value: Any, chance: random.Random) -> Any:
    """One to three entries replaced, removed, doubled, renamed or nested deeply."""
    new = copy.deepcopy(value)
    for _ in range(chance.randint(1, 3)):
        places = list(_places(new))
        if not places:
            return copy.deepcopy(chance.choice(ODD))
        holder, key = chance.choice(places)
        kind = chance.randrange(6)
        if kind == 1:
            del holder[key]
        elif kind == 2 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == 2:
            holder[f"{key}x"] = holder.pop(key)
        elif kind == 3:
            deep: Any = copy.deepcopy(holder[key])
            for _ in range(chance.choice([1, 3, 30])):
                deep = [deep]
            holder[key] = deep
        elif kind == 4:
            other, its = chance.choice(places)
            holder[key] = copy.deepcopy(other[its])
        else:
            holder[key] = copy.deepcopy(chance.choice(ODD))
    return new


def json_changed(value: Any, chance: random.Random) -> bytes:
    """The changed value as JSON; rarely one that is nested more deeply than a parser can follow."""
    if chance.random() < 0.01:
        return b'{"a":' * 100_000
    return json.dumps(value_changed(value, chance)).encode("utf-8", "surrogatepass")


def refuses_or_reads(read: Callable[[Path], Any], made: Iterator[bytes], path: Path) -> dict[str, int]:
    """Every content is read, or refused in a sentence; all that went otherwise is told in the end, each kind once."""
    seen, wrong = {"read": 0, "refused": 0}, dict[str, str]()
    folder = {*path.parent.rglob("*"), path}
    for number, content in enumerate(made):
        path.write_bytes(content)
        kind, message = "read", ""
        try:
            read(path)
        except Exception as error:
            kind, message = type(error).__name__, str(error)
        if kind in ("ValueError", "UserError", "UnreadableError", "FileNotFoundError") and 10 < len(message) < 1500:
            seen["refused"] += 1
        elif kind == "read":
            seen["read"] += 1
        else:
            wrong.setdefault(f"{kind}: {message[:60]}", f"input {number}: {kind}: {message[:300]!r}")
        if number % 100 == 0 and set(path.parent.rglob("*")) != folder:
            wrong["written"] = f"input {number} has written a file"
    if wrong:
        pytest.fail("\n".join(wrong.values()))
    return seen


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    todo = [value]
    while todo:
        holder = todo.pop()
        if isinstance(holder, (dict, list)):
            for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
                yield holder, key
                todo.append(holder[key])
