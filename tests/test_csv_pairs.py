"""Pairs in a CSV file are those of JSON lines, for steering and for the lint; what is wrong is one sentence."""

import csv
from pathlib import Path

import pytest
from conftest import ROOT

import lightning_steer as ls
from lightning_steer.__main__ import main

COLUMNS = ["prompt", "positive", "negative"]


def test_the_same_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = ls.read_pairs(ROOT / "configs/pairs.jsonl")
    pairs[0] = pairs[0]._replace(prompt='He said "no", and\nleft', positive="a, b")
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([COLUMNS, *pairs])
    assert ls.read_pairs(path) == pairs
    assert main(["lint", str(path)]) == 1
    assert "'measure'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no rows"),
        ("prompt,positive,negative\n", "holds no rows"),
        ("prompt,positive\na,b\n", "missing: negative"),
        ("prompt,positive,negative\na,b\n", "has 2 fields in row 2, not 3"),
        ("prompt,positive,negative\na,b,\n", "its negative is empty"),
        ('prompt,positive,negative\na,"b,c\n', "cannot be read as .csv"),
        ("prompt,positive,positive\na,b,c\n", "has the column 'positive' twice"),
        ("a,b,c\nd,e,f\n", "unknown: a, b, c"),
    ],
)
def test_bad_files(content: str, sentence: str, workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.csv").write_text(content)
    assert main(["steer", "--llm", "nowhere", "--pairs", "x.csv"]) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert len(message.strip().splitlines()) == 1
    assert not Path("logs").exists()
