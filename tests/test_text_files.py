"""Text files as users have them: byte-order marks, line ends, separators in JSON strings, binary content."""

import json
from pathlib import Path

import pytest

from lightning_steer import text_files
from lightning_steer.data.behaviours.examples import read_pairs
from lightning_steer.data.prompts import read_prompts
from lightning_steer.data.table_files import read_rows
from lightning_steer.data.text import read

ODD = "one\u2028two\u0085three\u2029four"
"""A JSON string may hold what ``str.splitlines`` takes for the end of a line."""


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_json_lines_end_in_line_feeds_only(mark: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"prompt": ODD, "text": ODD, "id": "a"}
    path.write_bytes((mark + json.dumps(row, ensure_ascii=False) + end + end).encode())
    assert read_rows(path) == [row]
    assert read_prompts(path) == [("a", ODD)]
    assert read(path, ("text",)) == [(ODD,)]
    pair = {"prompt": ODD, "positive": "yes", "negative": "no"}
    path.write_bytes((mark + json.dumps(pair, ensure_ascii=False) + end).encode())
    assert [(e.prompt, e.behaviour) for e in read_pairs(path)] == [(ODD, "rows")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_plain_text_loses_its_mark(end: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(f"\ufeffone{end}{end}two{end}".encode())
    assert read_prompts(path) == [("1", "one"), ("2", "two")]


@pytest.mark.parametrize(
    ("content", "expected"), [(b"\x80\x81", "is not UTF-8 text .*byte 0"), (b"text\0more", "is binary .byte 4 is 0")]
)
@pytest.mark.parametrize("name", ["x.jsonl", "x.txt", "x.csv"])
def test_bytes_that_are_no_text(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    readers = [text_files.read, read_prompts, read_pairs] + ([] if name.endswith("txt") else [read_rows])
    for reader in readers:
        with pytest.raises(ValueError, match=expected):
            reader(path)


def test_a_line_that_is_no_object(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n["b"]\n')
    with pytest.raises(ValueError, match=r"x.jsonl, line 3: expected a JSON object, not"):
        text_files.json_lines(path)
    with pytest.raises(ValueError, match=r"line 1: expected a JSON object with b"):
        text_files.json_lines(path, ("b",))
