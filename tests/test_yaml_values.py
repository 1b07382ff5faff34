"""What is written in a configuration is read as it was meant: YAML 1.2, in files and on the command line alike."""

import math
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from lightning_steer import config_files

WORDS = [
    "no",
    "Yes",
    "off",
    "on",
    "y",
    "010",
    "1:30",
    "1_000",
    "1_0.5",
    "00.5",
    "2001-01-01",
    "0b11",
    "08",
    "{text}",
    "=",
]
NUMBERS = {"1e3": 1e3, "1e-3": 1e-3, ".5": 0.5, "5.": 5.0, "-0.0": 0.0, "0x10": 16, "+1": 1, "-.5E+2": -50.0, "0": 0}
OTHERS = {"true": True, "FALSE": False, "~": None, "null": None, ".inf": math.inf}


@pytest.mark.parametrize("text", WORDS)
def test_a_word_stays_a_word(text: str) -> None:
    assert config_files.load(text) == text


@pytest.mark.parametrize(("text", "value"), [*NUMBERS.items(), *OTHERS.items()])
def test_numbers_and_constants(text: str, value: Any) -> None:
    read = config_files.load(text)
    assert (read, type(read)) == (value, type(value))


class Labelled:
    """What takes names of its user's own."""

    def __init__(self, labels: dict[str, list[str]], seed: int = 0) -> None:
        self.labels, self.seed = labels, seed


@pytest.mark.parametrize("in_a_file", [True, False])
@pytest.mark.parametrize(("digits", "seed"), [("010", 10), ("7", 7), ("0x10", 16)])
def test_labels_are_words_and_numbers_the_same_in_a_file_and_on_the_command_line(
    in_a_file: bool, digits: str, seed: int, tmp_path: Path
) -> None:
    config_files.read_as_meant()
    parser = ArgumentParser()
    parser.add_class_arguments(Labelled, "data")
    parser.add_argument("--config", action="config")
    labels, path = "{no: [no, off], yes: [yes, on], 1e: [x]}", tmp_path / "x.yaml"
    path.write_text(f"data: {{labels: {labels}, seed: {digits}}}")
    values = [f"--config={path}"] if in_a_file else [f"--data.labels={labels}", f"--data.seed={digits}"]
    data = parser.parse_args(values).data
    assert data.labels == {"no": ["no", "off"], "yes": ["yes", "on"], "1e": ["x"]}
    assert (data.seed, type(data.seed)) == (seed, int)


@pytest.mark.parametrize(
    "text",
    [
        "{a: 1, a: 2}",
        "a.b: 1\na: {b: 2}",
        "a: {b: {c: 1}}\na.b.c: 2",
        "a.b: {c: 1}\na.b.c: 2",
        "x: [{a.b: 1, a: {b: 2}}]",
    ],
)
def test_a_key_that_is_set_twice_is_refused_however_it_is_written(text: str) -> None:
    with pytest.raises(ValueError, match=r"sets [abc.]+ twice, near line 1: keep one of them"):
        config_files.load(text)


def test_keys_that_only_begin_alike_and_merged_mappings_are_read() -> None:
    assert config_files.load("a.b: 1\na: {c: 2}\na.bc: 3") == {"a.b": 1, "a": {"c": 2}, "a.bc": 3}
    assert config_files.load("a: &x {b: 1}\nc: {<<: *x, b: 2}")["c"] == {"b": 2}
