"""Rows that are longer than a model reads: refused, skipped, or cut at the left; the report counts them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from decoders import decoder, letters
from test_rows_are_readable import fit, here, labelled, model, pairs, run  # noqa: F401

from lightning_steer.data.behaviour import BehaviourDataModule, PairsFile
from lightning_steer.data.mera import MERADataModule
from lightning_steer.data.mera_tasks import LabelledFile
from lightning_steer.data.readable import Reader, read_all
from lightning_steer.data.stereoset import StereoSetDataModule
from lightning_steer.llm import LLM
from lightning_steer.tokens import Question

LONGEST = 60
WORDS = "the cat sat on a mat and saw the old dog run down to the sea in the town at noon "


def reads(longest: int = LONGEST) -> LLM:
    return LLM("tiny", 0).adopt(decoder("llama", max_position_embeddings=longest), letters())


def part(*prompts: str, options: tuple[str, ...] = (" no", " yes it is")) -> list[tuple[str, Question]]:
    return [(f"r{i}", Question(prompt, options)) for i, prompt in enumerate(prompts)]


def test_a_cut_prompt_is_the_longest_end_that_can_be_read_and_options_stay_whole() -> None:
    llm, reader = reads(), Reader("truncate_left", ["fitted"])
    ((first, second),) = reader.read(llm, [part("the cat", WORDS.strip())])
    assert first == (0, Question("the cat", (" no", " yes it is")))
    place, question = second
    assert (place, question.options) == (1, (" no", " yes it is"))
    assert WORDS.strip().endswith(f" {question.prompt}")  # a whole word begins it
    llm.rows([question])
    before = re.search(rf"\S+ (?={re.escape(question.prompt)}$)", WORDS.strip())
    assert before is not None
    with pytest.raises(ValueError, match=f"more than the {LONGEST} that"):
        llm.rows([question._replace(prompt=before[0] + question.prompt)])
    assert reader.notes == [
        f"1 of 2 fitted rows read without the beginning of their prompt: longer than {LONGEST} tokens"
    ]


def test_a_prompt_without_blanks_is_cut_between_characters() -> None:
    ((row,),) = Reader("truncate_left", ["fitted"]).read(reads(), [part("a" * 30 + "b" * 60)])
    assert set(row[1].prompt) == {"b"}
    assert 40 < len(row[1].prompt) < LONGEST


def test_a_row_is_skipped_whole_if_one_of_its_options_is_too_long() -> None:
    reader = Reader("skip", ["fitted", "held-out"])
    long = ("r2", Question("the cat", (" no", " yes" * 30)))
    kept = reader.read(reads(), [[*part("the cat", "a dog"), long], part("one")])
    assert [place for place, _ in kept[0]] == [0, 1]
    assert reader.notes == [f"1 of 3 fitted rows skipped: longer than {LONGEST} tokens"]


@pytest.mark.parametrize(
    ("rule", "parts", "message"),
    [
        ("refuse", [part("the cat", WORDS)], "row r1: .* more than the 60 that"),
        ("skip", [part(WORDS, WORDS)], "all 2 fitted rows are longer than the 60 tokens"),
        ("truncate_left", [part("the cat", options=("a" * 70, "b"))], "row r0: .* use too_long skip"),
        ("truncate_left", [part(WORDS + "x"), part("old " + WORDS + "x")], "row r0: .* of another part too"),
        ("truncate_left", [part("a " + WORDS + "x", "b " + WORDS + "x")], "rows r0 and r1: .* count as two rows"),
    ],
    ids=["refused", "none left", "options alone", "equal ends", "equal within a part"],
)
def test_what_no_rule_can_mend_is_refused(rule: Any, parts: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reader(rule, ["fitted", "held-out"][: len(parts)]).read(reads(), parts)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="too_long is refuse, skip, truncate_left, not 'cut'"):
        Reader("cut", [])  # type: ignore[arg-type]


def test_answers_of_its_own_words_need_room_too() -> None:
    reader = Reader("skip", ["held-out"])
    assert [place for place, _ in reader.read(reads(), [part("the cat", "a" * 40)], new=30)[0]] == [0]


ROWS = [
    {"id": f"p{i}", "prompt": f"{WORDS if i % 4 == 0 else ''}the cat {'abcdefghijkl'[i]}", "positive": "no"}
    | {"negative": "yes it is", "behaviour": "b"}
    for i in range(12)
]


def test_each_model_reads_all_rows_anew(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    data = BehaviourDataModule(PairsFile(str(tmp_path / "pairs.jsonl")), too_long="skip")
    sizes = []
    for llm in (reads(), reads(200), reads()):
        read_all(data, llm)
        sizes.append(sum(map(len, data.parts)))
        assert [len(names) for names in data.clusters] == [len(part) for part in data.parts]
    assert sizes == [9, 12, 9]
    assert sum(int(note.split()[0]) for note in data.reader.notes) == 3


def test_every_part_is_cut_and_batches_hold_what_is_left(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    data = BehaviourDataModule(PairsFile(str(tmp_path / "pairs.jsonl")), too_long="truncate_left")
    read_all(data, reads())
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()[0]):
        for batch in loader:
            reads().rows([*batch.x, *batch.wanted, *batch.unwanted])
            assert [q.prompt for q in batch.x] == [q.prompt for q in batch.wanted] == [q.prompt for q in batch.unwanted]


@pytest.mark.parametrize(
    ("rule", "done"), [("skip", "skipped"), ("truncate_left", "read without the beginning of their prompt")]
)
def test_a_run_of_pairs_says_in_its_report_how_many_rows(
    rule: str,
    done: str,
    model: Path,  # noqa: F811
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "it is so that all of us saw them go up to the old town again "
    rows = [
        {**row, "prompt": (long * 2 if i in (0, 5, 7, 8) else "") + f"the cat is {i}"} for i, row in enumerate(ROWS)
    ]
    more = [*pairs(rows), f"--data.init_args.too_long={rule}", "--data.init_args.select_share=0.25"]
    assert fit("steer_behaviour", model, *more) == 0
    said = capsys.readouterr().out
    assert run("test", "steer_behaviour", model, *more) == 0
    (path,) = Path("logs").rglob("report.json")
    notes = [text for text in json.loads(path.read_text())["warnings"] if "rows" in text and done in text]
    assert sum(int(note.split()[0]) for note in notes) == 4
    assert all(
        re.fullmatch(rf"\d of \d (fitted|selection|held-out) rows {done}: longer than 60 tokens", n) for n in notes
    )
    assert all(note in path.with_name("report.md").read_text() for note in notes)
    assert all(note in said for note in notes)


@pytest.mark.parametrize("cache", ["null", "checkpoints/seen"])
def test_a_run_of_labelled_prompts_goes_on_without_the_long_ones(
    cache: str,
    model: Path,  # noqa: F811
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = [f"the cat {i}" + " is here" * (8 if i in (3, 40, 41, 79) else 0) for i in range(80)]
    more = [*labelled(texts), f"--data.init_args.cache={cache}", "--data.init_args.too_long=skip"]
    assert fit("steer_mera", model, *more) == 0
    assert ("Answering" in capsys.readouterr().out) == (cache != "null")
    assert run("test", "steer_mera", model, *more) == 0
    assert "Answering" not in capsys.readouterr().out  # what is recorded is found again
    path = sorted(Path("logs").rglob("report.json"))[-1]
    notes = [text for text in json.loads(path.read_text())["warnings"] if "skipped" in text]
    assert sum(int(note.split()[0]) for note in notes) == 4
    assert {note.split(" rows")[0].split()[-1] for note in notes} <= {"training", "calibration", "held-out"}


def test_a_label_that_would_vanish_from_a_split_is_named(tmp_path: Path) -> None:
    rows = [{"text": f"the cat {'abcdefghij'[i // 2]}" + " so" * 20 * (i % 2), "kind": "ab"[i % 2]} for i in range(20)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = LabelledFile(str(tmp_path / "own.jsonl"), "{text} :", {"a": ["ham"], "b": ["spam"]}, "kind")
    data = MERADataModule(source, 8, 4, 4, too_long="skip")
    with pytest.raises(ValueError, match="all rows with the label 'b' of one split are longer than the 60 tokens"):
        read_all(data, reads())


def test_stereotypes_take_the_setting_too() -> None:
    assert StereoSetDataModule(too_long="skip").reader.changes
    assert not StereoSetDataModule().reader.changes
