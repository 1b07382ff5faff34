"""Rows that are longer than a model reads: refused, skipped, or cut at the left; the report counts them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from decoders import decoder, letters
from test_rows_are_readable import fit, here, labelled, model, pairs, run  # noqa: F401

from lightning_steer.__main__ import main
from lightning_steer.data.behaviours.module import BehaviourDataModule, PairsFile
from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import LabelledFile
from lightning_steer.data.readable import Reader, read_all
from lightning_steer.data.stereoset.module import StereoSetDataModule
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice

LONGEST = 60
WORDS = "the cat sat on a mat and saw the old dog run down to the sea in the town at noon "


def reads(longest: int = LONGEST) -> LLM:
    return LLM("tiny", 0).adopt(decoder("llama", max_position_embeddings=longest), letters())


def part(*prompts: str, options: tuple[str, ...] = (" no", " yes it is")) -> list[tuple[str, MultipleChoice]]:
    return [(f"r{i}", MultipleChoice(prompt, options)) for i, prompt in enumerate(prompts)]


def test_a_cut_prompt_is_the_longest_end_that_can_be_read_and_options_stay_whole() -> None:
    llm, reader = reads(), Reader("truncate_left", ["fitted"])
    ((first, second),) = reader.read(llm, [part("the cat", WORDS.strip())])
    assert first == (0, MultipleChoice("the cat", (" no", " yes it is")))
    place, question = second
    assert (place, question.choices) == (1, (" no", " yes it is"))
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
    long = ("r2", MultipleChoice("the cat", (" no", " yes" * 30)))
    rows_kept = reader.read(reads(), [[*part("the cat", "a dog"), long], part("one")])
    assert [place for place, _ in rows_kept[0]] == [0, 1]
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
            reads().rows([*batch.x, *batch.positive, *batch.negative])
            assert (
                [q.prompt for q in batch.x] == [q.prompt for q in batch.positive] == [q.prompt for q in batch.negative]
            )


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
    output = capsys.readouterr().out
    assert run("test", "steer_behaviour", model, *more) == 0
    (path,) = Path("logs").rglob("report.json")
    notes = [text for text in json.loads(path.read_text())["warnings"] if "rows" in text and done in text]
    assert sum(int(note.split()[0]) for note in notes) == 4
    assert all(
        re.fullmatch(rf"\d of \d (fitted|selection|held-out) rows {done}: longer than 60 tokens", n) for n in notes
    )
    assert all(note in path.with_name("report.md").read_text() for note in notes)
    assert all(note in output for note in notes)


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


# ---- one length for every pass that reads a row


@pytest.mark.parametrize("whole", [(), (0, 1)], ids=["scored", "read whole"])
@pytest.mark.parametrize("rule", ["refuse", "skip", "truncate_left"])
def test_what_is_let_through_is_read_by_every_pass_and_a_token_more_is_not(rule: Any, whole: tuple[int, ...]) -> None:
    """The last token of an option is predicted, and fed only where the option is read as a text."""
    llm, options = reads(), (" no", " yes")
    fits = "a" * (LONGEST - 1 - len(options[1]) + (not whole))  # after the beginning of text
    for prompt, readable in ((fits, True), (fits + "a", False)):
        if not readable and rule == "refuse":
            with pytest.raises(ValueError, match=f"row r0: {LONGEST + 1} tokens are more than the {LONGEST} that"):
                Reader(rule, ["fitted"]).read(llm, [part(prompt, options=options)], whole=whole)
            continue
        rows_kept = Reader(rule, ["fitted"]).read(
            llm, [[*part("the cat"), *part(prompt, options=options)]], whole=whole
        )[0]
        assert len(rows_kept) == 1 + (readable or rule != "skip")
        question = rows_kept[-1][1]
        assert (question.prompt == prompt) == readable or rule == "skip"
        llm.scores([question])
        for i in whole:
            llm.activations([MultipleChoice(question.prompt, (question.choices[i],))])


def test_a_label_after_all_that_may_be_written_can_be_scored() -> None:
    """Before a label of 2 tokens all but 2 of the new ones may stand; the other label then has 11."""
    llm, options, new = reads(), (" b", " yes it is"), 20
    for more in (0, 1):
        prompt = "a" * (LONGEST - 1 - (new - 2) - (len(options[1]) - 1) + more)
        rows = [part("the cat", prompt, options=options)]
        assert len(Reader("skip", ["held-out"]).read(llm, rows, new)[0]) == 2 - more
        if not more:
            llm.generate([prompt], max_new_tokens=new)
            llm.scores([MultipleChoice(prompt + "c" * (new - 2), options)])


def test_pairs_that_fit_by_one_token_are_fitted_and_others_are_refused_before_a_folder_is_written(
    model: Path,  # noqa: F811
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    llm = LLM(str(model))
    llm.load()
    longest = LONGEST - len(llm.tokenizer("x yes it is")["input_ids"]) + 1
    for length, code in ((longest, 0), (longest + 1, 2)):
        rows = [
            {**row, "prompt": f"a cat is {i}".ljust(length, "x") if i == 0 else f"a cat is {i}"}
            for i, row in enumerate(ROWS)
        ]
        assert fit("steer_behaviour", model, *pairs(rows), f"--run=of_{length}") == code
        assert Path("logs/steer_behaviour", f"of_{length}").exists() == (code == 0)
    assert f"row p0: {LONGEST + 1} tokens are more than the {LONGEST}" in capsys.readouterr().err


@pytest.mark.parametrize("rule", ["refuse", "skip", "truncate_left"])
def test_neutral_texts_are_read_before_a_fit_and_as_the_rule_says(
    rule: str,
    model: Path,  # noqa: F811
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("other.txt").write_text(f"the sea\n\n{WORDS}\n\na town\n")
    more = [
        *pairs(ROWS[1:4] + ROWS[5:8]),
        "--data.init_args.reference_texts=other.txt",
        f"--data.init_args.too_long={rule}",
    ]
    code = fit("steer_behaviour", model, *more)
    output = capsys.readouterr()
    if rule == "refuse":
        assert code == 2
        assert "text 2 of the reference texts: " in output.err
        assert f"more than the {LONGEST}" in output.err
        assert not Path("logs").exists()
        return
    assert code == 0
    Path("other.txt").unlink()  # what is read once is not read again
    Path("other.txt").write_text(f"the sea\n\n{WORDS}\n\na town\n")
    assert run("test", "steer_behaviour", model, *more) == 0
    (path,) = Path("logs").rglob("report.json")
    report = json.loads(path.read_text())
    assert report["metrics"]["reference_kl"]["n"] == (2 if rule == "skip" else 3)
    done = {"skip": "skipped", "truncate_left": "read without the beginning of their prompt"}[rule]
    assert f"1 of 3 reference texts {done}: longer than {LONGEST} tokens" in report["warnings"]


def test_a_neutral_text_without_a_token_is_refused_by_number() -> None:
    with pytest.raises(ValueError, match="text 1 of the reference texts: the text '' has no token"):
        Reader("skip", []).reference_texts(LLM("tiny").adopt(decoder("llama"), letters(bos=False)), [""])


def test_every_prompt_is_counted_with_its_response_before_a_folder_is_written(
    model: Path,  # noqa: F811
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["predict", "--config", "configs/responses.yaml", f"--model.init_args.backbone.init_args.llm={model}"]
    command += [
        "--model.init_args.steering=null",
        "--data.init_args.file=prompts.txt",
        "--trainer.enable_progress_bar=false",
    ]
    for length, code in ((40, 0), (41, 2)):
        Path("prompts.txt").write_text("the cat\n\n" + "a" * length)
        assert main([*command, "--model.init_args.max_new_tokens=20", f"--run=of_{length}"]) == code
        assert Path("logs/responses", f"of_{length}").exists() == (code == 0)
    assert f"prompt 2 of prompts.txt: 42 tokens and 20 new ones are more than the {LONGEST}" in capsys.readouterr().err
