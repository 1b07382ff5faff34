"""Four kinds of behaviour files become one kind of record; what is wrong is refused with the example's id."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_stereoset_metric import DATA

from lightning_steer.data.behaviours.examples import (
    BehaviourExample,
    read_choices,
    read_halves,
    read_pairs,
    read_personas,
)

needs_data = pytest.mark.skipif(
    "LIGHTNING_STEER_DATA" not in os.environ, reason="LIGHTNING_STEER_DATA is unset: the real data are not there"
)
YES, NO = "answer_matching_behavior", "answer_not_matching_behavior"
Reader = Callable[[Path], list[BehaviourExample]]


def write(folder: Path, rows: Sequence[Any], lines: bool = True) -> Path:
    path = folder / "some.json"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) if lines else json.dumps(rows))
    return path


def pairs(count: int = 3) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Now, or {i} later?", "positive": "Now.", "negative": " Later. ", "behaviour": "myopia"}
        for i in range(2, 2 + count)
    ]


def halves(count: int = 3, begin: str = "[INST]", separator: str = "[/INST]") -> list[dict[str, Any]]:
    return [
        {"question": f"{begin} Now, or {i} later? {separator} {answer} {i}"}
        for answer in ("Later", "Now")
        for i in range(2, 2 + count)
    ]


def choices(count: int = 3) -> list[dict[str, Any]]:
    return [
        {"question": f"I love {i}. Do you?\n (A) Yes\n (B) No", YES: f"({'AB'[i % 2]})", NO: f"({'BA'[i % 2]})"}
        for i in range(count)
    ]


def personas(count: int = 3) -> list[dict[str, Any]]:
    statements = [f"I enjoy {i} people" for i in range(count)]
    return [
        {
            "question": f'Is the following something you would say?\n"{statement}"',
            "statement": statement,
            "label_confidence": 0.9,
            YES: " Yes",
            NO: " No",
        }
        for statement in statements
    ]


def read_first_positive(path: Path) -> list[BehaviourExample]:
    return read_halves(path, "myopia", True)


def read_sycophancy(path: Path) -> list[BehaviourExample]:
    return read_choices(path, "sycophancy")


def read_extraversion(path: Path) -> list[BehaviourExample]:
    return read_personas(path, "extraversion")


READERS: dict[Reader, Callable[[int], list[dict[str, Any]]]] = {
    read_pairs: pairs,
    read_first_positive: halves,
    read_sycophancy: choices,
    read_extraversion: personas,
}


def test_pairs_without_a_behaviour_have_the_file_s_name(tmp_path: Path) -> None:
    named = read_pairs(write(tmp_path, pairs()))
    unnamed = read_pairs(write(tmp_path, [{k: v for k, v in row.items() if k != "behaviour"} for row in pairs()]))
    assert unnamed == [example._replace(behaviour="some") for example in named]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("lines", [True, False])
def test_files_become_records(reader: Reader, lines: bool, tmp_path: Path) -> None:
    records = reader(write(tmp_path, READERS[reader](3), lines))
    assert [example.id for example in records] == ["1", "2", "3"]
    assert all(text == text.strip() != "" for example in records for text in example)
    assert all(example.positive != example.negative for example in records)


def test_records_hold_what_the_files_say(tmp_path: Path) -> None:
    assert read_pairs(write(tmp_path, pairs()))[0] == ("1", "myopia", "Now, or 2 later?", "Now.", "Later.")
    named = [row | {"id": f"m{i}"} for i, row in enumerate(pairs())]
    assert [example.id for example in read_pairs(write(tmp_path, named))] == ["m0", "m1", "m2"]
    second = read_sycophancy(write(tmp_path, choices()))[1]
    assert second[1:] == ("sycophancy", "I love 1. Do you?\n (A) Yes\n (B) No", "(B)", "(A)")
    first = read_extraversion(write(tmp_path, personas()))[0]
    assert first[2:] == ('Is the following something you would say?\n"I enjoy 0 people"', "Yes", "No")


def test_the_caller_says_which_half_shows_the_behaviour(tmp_path: Path) -> None:
    path = write(tmp_path, halves(), lines=False)
    first, other = read_halves(path, "patience", True)[0], read_halves(path, "myopia", False)[0]
    assert first[2:] == ("Now, or 2 later?", "Later 2", "Now 2")
    assert (other.positive, other.negative) == (first.negative, first.positive)


def test_other_templates_can_be_read(tmp_path: Path) -> None:
    path = write(tmp_path, halves(begin="<user>", separator="<bot>"))
    assert read_halves(path, "myopia", True, "<user>", "<bot>") == read_first_positive(write(tmp_path, halves()))


def test_line_ends_within_a_text_do_not_end_a_line_of_the_file(tmp_path: Path) -> None:
    rows = [row | {"prompt": row["prompt"] + "\u2028\x85so?\r\n"} for row in pairs()]
    assert read_pairs(write(tmp_path, [*rows]))[0].prompt == "Now, or 2 later?\u2028\x85so?"


def put(name: str, value: Any) -> Callable[[list[dict[str, Any]]], list[Any]]:
    """Changes a column of the second row."""
    return lambda rows: [rows[0], rows[1] | {name: value}, *rows[2:]]


def drop(name: str) -> Callable[[list[dict[str, Any]]], list[Any]]:
    """Takes a column of the second row away."""
    return lambda rows: [rows[0], {key: value for key, value in rows[1].items() if key != name}, *rows[2:]]


BAD: dict[str, tuple[Reader, Callable[[list[dict[str, Any]]], list[Any]], str]] = {
    "missing column": (read_pairs, drop("negative"), r"example 2: .* missing: negative, unknown: none"),
    "unknown column": (read_pairs, put("label", "x"), r"example 2: .* missing: none, unknown: label"),
    "empty continuation": (read_pairs, put("positive", "  "), r"example 2: its positive is empty or no text"),
    "no text as prompt": (read_pairs, put("prompt", None), r"example 2: its prompt is empty or no text"),
    "no text": (read_pairs, put("negative", 3), r"example 2: its negative is empty or no text"),
    "no behaviour": (read_pairs, put("behaviour", None), r"example 2: its behaviour is empty or no text"),
    "same continuations": (read_pairs, put("negative", "Now."), r"example 2 has the same continuation twice: 'Now.'"),
    "id twice": (read_pairs, lambda rows: [row | {"id": "a"} for row in rows], r"id a occurs twice"),
    "example twice": (read_pairs, lambda rows: [*rows, rows[0]], r"example 4 repeats example 1"),
    "no object": (read_pairs, lambda rows: [rows[0], 7], r"example 2: expected an object .* not 7"),
    "halves of unequal length": (read_first_positive, lambda rows: rows[:-1], r"halves of unequal length: 5 examples"),
    "halves that do not match": (
        read_first_positive,
        put("question", "[INST] Where? [/INST] There"),
        r"the halves do not match, example 2 asks 'Where\?' and example 5 asks 'Now, or 3 later\?'",
    ),
    "halves that begin elsewhere": (
        read_first_positive,
        lambda rows: [*rows[1:3], rows[0], *rows[3:]],
        r"the halves do not match, example 1 asks 'Now, or 3 later\?'",
    ),
    "no separator": (
        read_first_positive,
        put("question", "[INST] Where? There"),
        r"example 2: .* '\[/INST\]' once, not 0",
    ),
    "separator twice": (
        read_first_positive,
        put("question", "[INST] Where? [/INST] There [/INST]"),
        r"example 2: .* not 2 times",
    ),
    "no begin": (
        read_first_positive,
        put("question", "Where? [/INST] There"),
        r"example 2: expected '\[INST\]' at the st",
    ),
    "empty half": (
        read_first_positive,
        put("question", "[INST] Where? [/INST] "),
        r"example 2 has an empty continuation",
    ),
    "empty question": (read_first_positive, put("question", "[INST] [/INST] There"), r"example 2 has an empty prompt"),
    "pairs instead of halves": (read_first_positive, lambda _: pairs(), r"example 1: .* missing: question, unknown: "),
    "answer that is no option": (read_sycophancy, put(YES, "(C)"), r"example 2: '\(C\)' is no option of the question"),
    "same answers": (read_sycophancy, put(YES, "(A)"), r"example 2 has the same continuation twice: '\(A\)'"),
    "open question": (read_sycophancy, drop(YES), r"example 2: .* missing: answer_matching_behavior"),
    "statement of another question": (
        read_extraversion,
        put("statement", "I hate them"),
        r"example 2: the question does not hold its statement 'I hate them'",
    ),
    "no rows": (read_pairs, lambda _: [], r"is empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    reader, spoil, message = BAD[name]
    path = write(tmp_path, spoil(READERS[reader](3)))
    with pytest.raises(ValueError, match=message) as error:
        reader(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file of behaviour examples .*nowhere"):
        read_pairs(tmp_path / "nowhere")
    path = tmp_path / "some.json"
    path.write_text(json.dumps(pairs()[0]) + '\n{"prompt":\n')
    with pytest.raises(ValueError, match="is not JSON at example 2"):
        read_pairs(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_pairs(path)


@needs_data
@pytest.mark.parametrize(
    ("name", "first_half_positive", "count"),
    [("hallucination", True, 49), ("myopia", False, 50), ("corrigible", False, 50)],
)
def test_the_released_halves(name: str, first_half_positive: bool, count: int) -> None:
    path = DATA / "behaviour" / f"{name}.json"
    halves = read_halves(path, name, first_half_positive)
    assert len(halves) == count
    raw = [row["question"] for row in json.loads(path.read_text())]
    ends = [(e.positive, e.negative) if first_half_positive else (e.negative, e.positive) for e in halves]
    for half in (0, 1):  # nothing but the outer form is lost
        whole = [f"[INST] {e.prompt} [/INST] {end[half]}" for e, end in zip(halves, ends, strict=True)]
        assert whole == raw[half * count : (half + 1) * count]
    if name == "myopia":
        assert halves[0].positive.startswith("I'd prefer a beer now")


@needs_data
def test_the_choices_of_caa() -> None:
    assert len(read_sycophancy(DATA / "caa" / "sycophancy" / "generate_dataset.json")) == 1000
    assert len(read_sycophancy(DATA / "caa" / "sycophancy" / "test_dataset_ab.json")) == 50
    with pytest.raises(ValueError, match=r"test_dataset_open_ended.json, example 1: .* missing: answer_matching"):
        read_sycophancy(DATA / "caa" / "sycophancy" / "test_dataset_open_ended.json")
