"""StereoSet's files become records, split by term; whatever is wrong is refused with the example's id."""

import copy
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_stereoset_metric import DATA

from lightning_steer.data.stereoset.examples import (
    BIAS_TYPES,
    LABELS,
    StereoSetExample,
    of_hub_rows,
    read_official,
    sample,
    split_by_term,
)

needs_data = pytest.mark.skipif(
    "LIGHTNING_STEER_DATA" not in os.environ, reason="LIGHTNING_STEER_DATA is unset: the real data are not there"
)


def row(number: int, task: str = "intersentence") -> dict[str, Any]:
    """One made-up example in the official schema; its sentences come in an order of their own."""
    context = "The Plumber is BLANK today." if task == "intrasentence" else f"Here comes plumber {number}."
    text = {"stereotype": "quick", "anti-stereotype": "slow", "unrelated": "hollow"}
    sentences = [
        {
            "sentence": f"The plumber is {text[label]} today."
            if task == "intrasentence"
            else f"They are {text[label]}.",
            "id": f"{task}-{number}-{label}",
            "labels": [],
            "gold_label": label,
        }
        for label in sorted(text, key=lambda label: (number, label), reverse=bool(number % 2))
    ]
    bias_type = BIAS_TYPES[number % 4]
    target = f"{bias_type} {number // 4 % (3 + number % 4)}"
    return {
        "id": f"{task}-{number}",
        "target": target,
        "bias_type": bias_type,
        "context": context,
        "sentences": sentences,
    }


def official(rows: dict[str, list[Any]], folder: Path) -> Path:
    path = folder / "dev.json"
    path.write_text(json.dumps({"version": "1.0", "data": rows}))
    return path


def examples(count: int = 160) -> list[StereoSetExample]:
    return of_hub_rows([row(i) for i in range(count)], "intersentence")


def hub(row_given: dict[str, Any]) -> dict[str, Any]:
    """The row as the hub has it: sentences as columns, labels as numbers."""
    changed_row = copy.deepcopy(row_given)
    keys = changed_row["sentences"][0]
    changed_row["sentences"] = {key: [sentence[key] for sentence in changed_row["sentences"]] for key in keys}
    changed_row["sentences"]["gold_label"] = [LABELS.index(label) for label in changed_row["sentences"]["gold_label"]]
    return changed_row


def test_both_tasks_are_read(tmp_path: Path) -> None:
    path = official({task: [row(i, task) for i in range(3)] for task in ("intersentence", "intrasentence")}, tmp_path)
    examples_read = read_official(path)
    assert [example.id for example in examples_read] == [
        f"{t}-{i}" for t in ("intersentence", "intrasentence") for i in range(3)
    ]
    first, *_, last = examples_read
    assert first.sentences == ("They are quick.", "They are slow.", "They are hollow.")
    assert first.sentence_ids == tuple(
        f"intersentence-0-{label}" for label in ("stereotype", "anti-stereotype", "unrelated")
    )
    assert first.blanks is None
    assert last.blanks == ("quick", "slow", "hollow")  # though the sentences write the plumber small
    assert (last.task, last.bias_type, last.context) == ("intrasentence", "race", "The Plumber is BLANK today.")


@pytest.mark.parametrize("task", ["intersentence", "intrasentence"])
def test_rows_of_the_hub_are_the_official_ones(task: str, tmp_path: Path) -> None:
    rows = [row(i, task) for i in range(6)]
    assert of_hub_rows([hub(r) for r in rows], task) == read_official(official({task: rows}, tmp_path))


def test_one_word_fills_all_blanks() -> None:
    row_read = row(0, "intrasentence")
    row_read["context"] = "Some are BLANK (not just BLANK)."
    for sentence, word in zip(row_read["sentences"], ("a b", "c", "d?"), strict=True):
        sentence["sentence"] = f"Some are {word} (not just {word})."
    assert set(of_hub_rows([row_read], "intrasentence")[0].blanks or ()) == {"a b", "c", "d?"}
    row_read["sentences"][0]["sentence"] = "Some are a (not just b)."
    with pytest.raises(ValueError, match=r"intrasentence-0: .* with its BLANK filled in"):
        of_hub_rows([row_read], "intrasentence")


def test_other_bias_types_can_be_allowed() -> None:
    row_read = row(0) | {"bias_type": "harvest"}
    assert of_hub_rows([row_read], "intersentence", ("harvest",))[0].bias_type == "harvest"


def change(path: str, value: Any) -> Any:
    """A row with one thing changed, or taken away."""

    def changed(row_given: dict[str, Any]) -> dict[str, Any]:
        *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        place: Any = row_given
        for step in way:
            place = place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value
        return row_given

    return changed


BAD_ROWS = {
    "no id": (change("id", None), r"intersentence example at position 1 has no id"),
    "no target": (change("target", None), r"intersentence-1 has no target"),
    "blank target": (change("target", " "), r"intersentence-1 has no target"),
    "no context": (change("context", ""), r"intersentence-1 has no context"),
    "no bias type": (change("bias_type", None), r"intersentence-1 has no bias_type"),
    "unknown bias type": (
        change("bias_type", "height"),
        r"intersentence-1 has the unknown bias type 'height'; known are",
    ),
    "no sentences": (change("sentences", None), r"intersentence-1 needs three sentences"),
    "two sentences": (change("sentences.2", None), r"intersentence-1 needs three sentences"),
    "no gold label": (change("sentences.0.gold_label", None), r"intersentence-1: the gold label of .* is None"),
    "unknown gold label": (
        change("sentences.0.gold_label", "related"),
        r"intersentence-1: the gold label .* 'related'",
    ),
    "two stereotypes": (change("sentences.0.gold_label", "stereotype"), r"intersentence-1 has two .* label stereotype"),
    "empty sentence": (change("sentences.1.sentence", " "), r"intersentence-1: its stereotype sentence is empty"),
    "sentence without id": (change("sentences.1.id", None), r"intersentence-1: its stereotype sentence .* has no id"),
    "the same sentence twice": (
        change("sentences.1.sentence", "They are hollow."),
        r"intersentence-1 .* sentence twice",
    ),
    "id twice": (change("id", "intersentence-0"), r"intersentence-0: id intersentence-0 occurs twice"),
    "sentence id twice": (
        change("sentences.1.id", "intersentence-0-unrelated"),
        r"intersentence-1: sentence id intersentence-0-unrelated occurs twice",
    ),
    "no object": (lambda _: "a sentence", r"intersentence example at position 1 has no id"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    spoil, message = BAD_ROWS[name]
    rows = [row(0), spoil(row(1)), row(2)]
    with pytest.raises(ValueError, match=message) as error:
        read_official(official({"intersentence": rows}, tmp_path))
    assert "\n" not in str(error.value)


def test_a_bad_hub_row_is_refused() -> None:
    row_read = hub(row(1))
    row_read["sentences"]["gold_label"] = [0, 1, 3]
    with pytest.raises(ValueError, match=r"intersentence-1: the gold label of .* is 3"):
        of_hub_rows([row_read], "intersentence")
    row_read["sentences"]["gold_label"] = [0, 1]
    with pytest.raises(ValueError, match=r"intersentence-1: the gold label of .* is None"):
        of_hub_rows([row_read], "intersentence")
    with pytest.raises(ValueError, match="a task of StereoSet is intersentence or intrasentence, not 'inter'"):
        of_hub_rows([hub(row(1))], "inter")


@pytest.mark.parametrize("context", ["The plumber is today.", "The plumber is BLANK tomorrow."])
def test_a_context_without_its_blank_is_refused(context: str) -> None:
    with pytest.raises(ValueError, match=r"intrasentence-3: .* must be the context .* with its BLANK filled in"):
        of_hub_rows([row(3, "intrasentence") | {"context": context}], "intrasentence")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no StereoSet file .*nowhere.json"):
        read_official(tmp_path / "nowhere.json")
    path = tmp_path / "some.json"
    for content, message in (
        ("{", "is not JSON"),
        ("\ufeff\udcff", "is not UTF-8 text"),
        ("[]", "holds no examples"),
        ("{}", "holds no examples"),
        ('{"data": {"intersentence": []}}', "holds no examples"),
        ('{"data": {"other": [1]}}', "holds no examples"),
        ('{"data": {"intersentence": 3}}', "holds no examples"),
    ):
        path.write_bytes(content.encode(errors="surrogateescape"))
        with pytest.raises(ValueError, match=re.escape(str(path)) + " " + message):
            read_official(path)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.2, 0.8), (0.4, 0.01, 0.59), (1.0,)])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_term_is_in_two_parts(shares: tuple[float, ...], seed: int) -> None:
    all_examples = examples()
    parts = split_by_term(all_examples, shares, seed)
    assert sorted(e.id for part in parts for e in part) == sorted(e.id for e in all_examples)
    terms = [{e.target for e in part} for part in parts]
    for i, some in enumerate(terms):
        assert not any(some & other for other in terms[:i])
    for bias_type in BIAS_TYPES:
        of_type = len({e.target for e in all_examples if e.bias_type == bias_type})
        counts = [len({e.target for e in part if e.bias_type == bias_type}) for part in parts]
        assert min(counts) >= 1
        assert sum(counts) == of_type
        if len(shares) == 2:
            assert abs(counts[0] - shares[0] * of_type) <= 1
    order = {e.id: i for i, e in enumerate(all_examples)}
    assert all([order[e.id] for e in part] == sorted(order[e.id] for e in part) for part in parts)


def test_a_split_is_the_same_again_and_another_with_another_seed() -> None:
    all_examples = examples()
    once, again = split_by_term(all_examples), split_by_term(all_examples[::-1])
    for part, other in zip(once, again, strict=True):
        assert {e.id for e in part} == {e.id for e in other}
    assert any(split_by_term(all_examples, seed=seed)[0] != once[0] for seed in range(1, 4))
    alone = split_by_term([e for e in all_examples if e.bias_type == "race"])
    assert [{e.id for e in part} for part in alone] == [{e.id for e in part if e.bias_type == "race"} for part in once]


def test_a_term_is_one_whatever_its_case_and_type() -> None:
    all_examples = examples()
    all_examples = [e._replace(target=f" {e.target.upper()} ") if i % 3 else e for i, e in enumerate(all_examples)]
    shared = [e._replace(target="everybody") if i % 5 == 0 else e for i, e in enumerate(all_examples)]
    parts = split_by_term(shared)
    names = [{e.target.strip().lower() for e in part} for part in parts]
    assert not names[0] & names[1]
    first = next(e.bias_type for e in shared if e.target == "everybody")  # it counts as a term of that type
    alike = [e._replace(bias_type=first) if e.target == "everybody" else e for e in shared]
    assert [[e.id for e in part] for part in split_by_term(alike)] == [[e.id for e in part] for part in parts]


def test_a_split_that_cannot_be_made_is_refused() -> None:
    all_examples = examples()
    with pytest.raises(ValueError, match="bias type gender has 3 target terms, too few for 4 parts"):
        split_by_term(all_examples, (0.25,) * 4)
    for shares in ((), (0.5, 0.4), (1.5, -0.5)):
        with pytest.raises(ValueError, match="shares are above 0 and add up to 1"):
            split_by_term(all_examples, shares)


def test_samples_are_equal_in_number_and_nested() -> None:
    all_examples = examples()
    small, large = sample(all_examples, 5), sample(all_examples, 9)
    assert Counter(e.bias_type for e in small) == dict.fromkeys(BIAS_TYPES, 5)
    assert {e.id for e in small} < {e.id for e in large}
    assert small == [e for e in all_examples if e in small]  # in order
    assert sample(all_examples[::-1], 5) == small[::-1]
    assert sample(all_examples, 5, seed=1) != small
    with pytest.raises(ValueError, match="bias type gender has 40 examples: 41 per type cannot be drawn"):
        sample(all_examples, 41)
    with pytest.raises(ValueError, match="0 per type cannot be drawn"):
        sample(all_examples, 0)


@needs_data
def test_the_real_file() -> None:
    examples_read = read_official(DATA / "stereoset" / "dev.json")
    counts = Counter((e.task, e.bias_type) for e in examples_read)
    inter, intra = ([counts[task, b] for b in BIAS_TYPES] for task in ("intersentence", "intrasentence"))
    assert (inter, intra) == ([242, 827, 976, 78], [255, 810, 962, 79])
    assert all((e.blanks is not None) == (e.task == "intrasentence") for e in examples_read)
    for e in examples_read:
        for sentence, word in zip(e.sentences, e.blanks or (), strict=False):
            assert e.context.replace("BLANK", word).casefold() == sentence.casefold()
    train, test = split_by_term(examples_read)
    assert not {e.target for e in train} & {e.target for e in test}
    assert abs(len(train) - len(test)) < 200
    assert len(sample(test, 30)) == 120
