"""Labelled prompts: splits that are exchangeable, labels that can be told apart, and every wrong input refused."""

import csv
import itertools
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import quiet_trainer
from decoders import decoder, letters
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import MMLU, FinanceTask, LabelledFile, PocketTask, SmsSpam
from lightning_steer.data.splits import stratified
from lightning_steer.data.table_files import read_rows
from lightning_steer.lm.language_model import LLM
from lightning_steer.metrics import Answers

DATA = os.environ.get("LIGHTNING_STEER_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="LIGHTNING_STEER_DATA is not set")
LABELS = {"ham": ["ham", "Ham"], "spam": ["spam"]}


# ---- splits


@given(
    st.lists(st.integers(0, 3), min_size=30, max_size=200),
    st.lists(st.integers(4, 9), min_size=1, max_size=3),
    st.integers(0, 9),
)
@settings(max_examples=100)
def test_splits_are_disjoint_reproducible_and_of_the_sizes_asked(labels, sizes, seed):
    try:
        parts = stratified(labels, sizes, seed)
    except ValueError as error:  # a class of a few rows
        assert "none of class" in str(error)  # noqa: PT017
        return
    assert [len(part) for part in parts] == sizes
    together = [i for part in parts for i in part]
    assert len(set(together)) == len(together)
    assert set(together) <= set(range(len(labels)))
    assert stratified(labels, sizes, seed) == parts


def exchangeable(split) -> None:
    """The law (error 8): rows sorted by class and subject are drawn alike into every split."""
    labels, subject = np.repeat([0, 1, 2], [600, 300, 100]), np.arange(1000) % 600 // 100
    for part in split(labels.tolist(), [500, 250, 200]):
        share = np.bincount(labels[part], minlength=3) / len(part)
        assert np.abs(share - [0.6, 0.3, 0.1]).max() <= 1.01 / len(part) * 2
        of_subject = np.bincount(subject[part], minlength=6) / len(part)
        assert np.abs(of_subject - np.bincount(subject) / 1000).max() < 0.1
        assert np.abs(np.corrcoef(np.arange(len(part)), labels[part])[0, 1]) < 0.2  # random order


def test_splits_are_stratified_and_shuffled():
    exchangeable(lambda labels, sizes: stratified(labels, sizes, 0))


def test_the_law_catches_contiguous_slices():
    edges = np.cumsum([0, 500, 250, 200])
    with pytest.raises(AssertionError):
        exchangeable(lambda labels, sizes: [list(range(a, b)) for a, b in itertools.pairwise(edges)])


def test_another_seed_draws_other_splits():
    labels = [0, 1] * 100
    assert stratified(labels, [50, 50], 0) != stratified(labels, [50, 50], 1)


@pytest.mark.parametrize(
    ("labels", "sizes", "message"),
    [
        ([0, 1] * 10, [15, 10], "15 \\+ 10 = 25 rows, but there are 20"),
        ([0, 1] * 10, [5, 0], "at least 1 row, not 5, 0"),
        ([0] * 99 + [1], [50, 25], "none of class 1, which has 1 of 100"),
    ],
)
def test_impossible_splits_are_refused(labels, sizes, message):
    with pytest.raises(ValueError, match=message):
        stratified(labels, sizes, 0)


# ---- files

ROWS = [{"text": 'he said "hi", ok', "label": "ham"}, {"text": "win\tnow", "label": "spam"}]


def write(folder, kind):
    path = folder / f"rows.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows(ROWS)
    elif kind == "tsv":
        path.write_text('text\tlabel\nhe said "hi", ok\tham\nwin now\tspam\n')
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        from datasets import Dataset

        dataset = Dataset.from_list(ROWS)
        if kind == "parquet":
            dataset.to_parquet(str(path))
        else:
            dataset.save_to_disk(str(path))
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "folder"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
    rows = read_rows(write(tmp_path, kind))
    assert [row["label"] for row in rows] == ["ham", "spam"]
    assert rows[0]["text"] == ROWS[0]["text"]
    assert rows[1]["text"].split() == ["win", "now"]


def test_a_file_without_a_header_is_given_its_columns(tmp_path):
    path = tmp_path / "SMSCollection"
    path.write_text('ham\tan odd " quote\nspam\twin\n')
    assert read_rows(path, ["label", "sms"])[0] == {"label": "ham", "sms": 'an odd " quote'}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.csv", None, "there is no data file"),
        ("x.xlsx", "a", "unknown kind '.xlsx': known are .csv"),
        ("x.csv", "text,label\n", "holds no rows"),
        ("x.csv", "text,label\na,b,c\n", "3 fields in row 2, not 2: text, label"),
        ("x.csv", 'text,label\n"a,b\n', "cannot be read as .csv"),
        ("x.jsonl", "{not json}\n", "line 1: expected a JSON object"),
        ("x.jsonl", "[1, 2]\n", "expected a JSON object"),
        ("x.jsonl", b"\xff\xfe{}", "is not UTF-8 text"),
    ],
)
def test_unreadable_files_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_rows(path)


# ---- a user's own data


def own(folder, n=60, **settings):
    rows = [{"text": f"message {i}", "label": ("ham", "spam")[i % 3 == 0]} for i in range(n)]
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return LabelledFile(str(path), **{"template": "text: {text}\nanswer:", "labels": LABELS, **settings})


def module(source, **settings):
    data = MERADataModule(source, **{"train": 30, "calibration": 10, "test": 10, "batch_size": 8, **settings})
    data.setup()
    return data


def test_prompts_options_and_labels(tmp_path):
    data = module(own(tmp_path))
    assert data.choices == (" ham", " Ham", " spam")
    assert data.label_of == (0, 0, 1)
    batch = next(iter(data.train_dataloader()))
    assert batch.x[0].prompt.startswith("text: message ")
    assert batch.x[0].choices == data.choices
    number = int(batch.x[0].prompt.split()[2])
    assert batch.y[0] == (number % 3 == 0)
    assert module(own(tmp_path), leading_blank=False).choices == ("ham", "Ham", "spam")


def test_every_row_comes_once_and_in_order(tmp_path):
    data = module(own(tmp_path))
    for loader, n in ((data.train_dataloader(), 30), (data.val_dataloader(), 10), (data.test_dataloader()[1], 30)):
        assert torch.cat([batch.row for batch in loader]).tolist() == list(range(n))
    prompts = [{e.prompt for e in part} for part in (data.train, data.calibration, data.test)]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 50


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_the_very_same_batches(tmp_path, world):
    class Rank:
        world_size = world
        lightning_module = None

        def __init__(self, rank):
            self.global_rank = rank

    whole, shares = module(own(tmp_path)), []
    for rank in range(world):
        data = module(own(tmp_path))
        data.trainer = Rank(rank)
        shares.append(list(data.train_dataloader()))
    alone = list(whole.train_dataloader())
    assert {len(share) for share in shares} == {len(alone)}
    for j, batch in enumerate(alone):
        rows = torch.cat([share[j].row for share in shares])
        assert torch.equal(rows.sort().values, batch.row)
        assert all(len(share[j].row) for share in shares)  # no process without a row


def test_prompts_that_occur_twice_are_taken_once(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("text,label\n" + "".join(f"m {i % 40},{'ham' if i % 2 else 'spam'}\n" for i in range(200)))
    source = LabelledFile(str(path), "{text}", LABELS)
    data = module(source, train=20, calibration=10, test=10)
    assert len({e.prompt for part in (data.train, data.calibration, data.test) for e in part}) == 40
    with pytest.raises(ValueError, match="= 41 rows, but there are 40"):
        module(source, train=21, calibration=10, test=10)


def bad(folder, text="text,label\na,ham\nb,spam\n", **settings):
    path = folder / "bad.csv"
    path.write_text(text)
    return LabelledFile(str(path), **{"template": "{text}", "labels": LABELS, **settings})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: bad(f, template="{sms}"), "row 1, has no column 'sms'; its columns are text, label"),
        (lambda f: bad(f, template="no column"), "names no column: write {text}"),
        (lambda f: bad(f, label_column="class"), "row 1, has no column 'class'; its columns are text, label"),
        (lambda f: bad(f, "text,label\na,ham\nb,eggs\n"), "row 2, has the label 'eggs'; known are 'ham', 'spam'"),
        (lambda f: bad(f, labels={"ham": ["ham"]}), "at least 2 labels, not \\['ham'\\]"),
        (lambda f: bad(f, labels={"ham": "ham", "spam": ["s"]}), "needs a list of written variants"),
        (lambda f: bad(f, labels={"ham": ["ham"], "spam": [" "]}), "none of them blank"),
        (lambda f: bad(f, labels={"ham": ["x", "y"], "spam": ["y"]}), "'y' stands for both 'ham' and 'spam'"),
        (lambda f: bad(f, "text,label\na,ham\nb,ham\n"), "no row of bad has the label 'spam'"),
        (lambda f: LabelledFile(str(f / "none.csv"), "{text}", LABELS), "there is no data file"),
        (lambda f: bad(f), "30 \\+ 10 \\+ 10 = 50 rows, but there are 2"),
        (lambda f: SmsSpam(str(f / "none")), "there is no data file"),
        (lambda f: MMLU("high_school", str(f)), "there are no files high_school_\\*_test.csv below"),
        (lambda f: MMLU("college"), "levels of MMLU are high_school and professional, not 'college'"),
        (lambda f: FinanceTask("tone"), "finance tasks are yes_no_question and sentiment_analysis, not 'tone'"),
        (lambda f: FinanceTask("yes_no_question", str(bad(f).file)), "has no column 'task_type'"),
        (lambda f: PocketTask("chess"), "the pocket tasks are sms_spam"),
        (lambda f: PocketTask("sms_spam", pull_share=1.5), "pull_share must lie between 0 and 1, not 1.5"),
    ],
)
def test_bad_sources_are_refused_in_a_sentence(tmp_path, make, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        module(make(tmp_path))


@pytest.mark.parametrize("settings", [{"train": 0}, {"calibration": -1}, {"batch_size": 0}])
def test_bad_sizes_are_refused(tmp_path, settings):
    with pytest.raises(ValueError, match="batch_size must be at least 1" if "batch_size" in settings else "positive"):
        module(own(tmp_path), **settings)


def test_a_null_cell_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": null, "label": "ham"}\n')
    with pytest.raises(ValueError, match="has nothing in column 'text'"):
        module(LabelledFile(str(path), "{text}", LABELS))


def test_hub_data_without_network_says_what_to_do():
    with pytest.raises(ValueError, match=r"ucirvine/sms_spam cannot be had from the hub .* give a local file"):
        module(SmsSpam())


# ---- labels as tokens


def spelling(labels, folder):
    return module(own(folder, labels={"ham": labels[0], "spam": labels[1]}), leading_blank=False)


@pytest.fixture(scope="module")
def llm():
    return LLM("tiny", layers=[1, 3]).adopt(decoder("llama"), letters())


def test_labels_of_several_tokens_are_fine(llm, tmp_path):
    spelling((["ham"], ["spam"]), tmp_path).check_tokens(llm)


@pytest.mark.parametrize("labels", [(["ham"], ["hams"]), (["spam"], ["spa"])])
def test_a_label_that_begins_another_is_refused(llm, tmp_path, labels):
    with pytest.raises(ValueError, match=r"the labels '(ham|spam)' and '(ham|spam)' collide: write them otherwise"):
        spelling(labels, tmp_path).check_tokens(llm)


def test_a_label_that_is_no_token_is_refused(llm, tmp_path):
    with pytest.raises(ValueError, match="'HAM' is no token of tiny: write the label 'ham' otherwise"):
        spelling((["HAM"], ["spam"]), tmp_path).check_tokens(llm)


def test_the_loaders_check_the_labels_of_the_model_they_serve(llm, tmp_path):
    data = spelling((["ham"], ["hams"]), tmp_path)
    trainer = quiet_trainer()
    trainer.strategy._lightning_module = type("Module", (torch.nn.Module,), {"backbone": llm})()
    data.trainer = trainer
    with pytest.raises(ValueError, match="collide"):
        data.train_dataloader()


def whole_labels(score) -> None:
    """The law (error 12): labels that differ in their first letters only are told apart."""
    g = torch.Generator().manual_seed(0)
    for _ in range(3):
        prompt = "".join("abcdefgh"[i] for i in torch.randint(8, (5,), generator=g).tolist())
        scores = score(prompt, ["ham", "spam"])
        assert (scores[0] - scores[1]).abs() > 1e-3


def test_labels_are_scored_as_whole_continuations(llm):
    from lightning_steer.lm.tokens import MultipleChoice

    whole_labels(lambda prompt, labels: llm.scores([MultipleChoice(prompt, tuple(labels))])[0, 0])
    ids = llm.tokenizer("abcspam", return_tensors="pt")["input_ids"]
    logp = llm.model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[3:].sum()
    torch.testing.assert_close(llm.scores([MultipleChoice("abc", ("spam",))])[0, 0, 0], logp, rtol=1e-4, atol=1e-4)


def test_the_law_catches_the_last_sub_token(llm):
    def last(prompt, labels):
        ids = llm.tokenizer(prompt, return_tensors="pt")["input_ids"]
        logp = llm.model(ids).logits[0, -1].log_softmax(-1)
        return torch.stack([logp[llm.tokenizer(label)["input_ids"][-1]] for label in labels])

    with pytest.raises(AssertionError):
        whole_labels(last)


# ---- the pocket tasks


@pytest.mark.parametrize("pull_share", [None, 0.1])
def test_pocket_tasks_come_with_their_planted_error(pull_share):
    data = MERADataModule(PocketTask("sentiment_analysis", pull_share), train=300, calibration=100, test=200)
    data.setup()
    counts = [Counter(e.label for e in part) for part in (data.train, data.calibration, data.test)]
    for part, n in zip(counts, (300, 100, 200), strict=True):
        assert part[1] == pytest.approx(n * (pull_share or 1 / 3), abs=2)
    planted = np.array([e.ground_truth for e in data.train])
    assert ((planted >= 0) & (planted <= 1)).all()
    assert planted.mean() > 0.2
    assert "10% pull class" in data.task or pull_share is None


def test_the_default_sizes_are_the_papers():
    assert tuple(MERADataModule(SmsSpam("x")).sizes) == (3000, 250, 250)
    assert tuple(MERADataModule(MMLU("high_school", "x")).sizes) == (3000, 250, 210)
    assert tuple(MERADataModule(MMLU("professional", "x")).sizes) == (2601, 210, 210)
    assert tuple(MERADataModule(SmsSpam("x"), calibration=100).sizes) == (3000, 100, 250)


# ---- real data


@needs_data
@pytest.mark.parametrize(
    ("source", "rows", "sizes"),
    [
        (lambda f: SmsSpam(str(f / "sms_spam" / "SMSSpamCollection")), 5574, {}),
        (lambda f: FinanceTask("yes_no_question", str(f / "finance" / "yes_no_question.jsonl")), 6000, {}),
        (lambda f: FinanceTask("sentiment_analysis", str(f / "finance" / "sentiment_analysis.jsonl")), 4846, {}),
        (lambda f: MMLU("professional", str(f / "mmlu")), 2720, {"train": 2000}),
    ],
)
def test_real_files(source, rows, sizes):
    source = source(Path(str(DATA)))
    assert len(source.examples(0, 0)) == rows
    data = MERADataModule(source, **sizes)
    data.setup()
    assert [len(part) for part in (data.train, data.calibration, data.test)] == list(data.sizes)
    shares = [np.bincount([e.label for e in part]) / len(part) for part in (data.train, data.calibration, data.test)]
    assert np.abs(shares[0] - shares[1]).max() < 0.01


def test_an_evaluation_can_grade_a_batch(llm, tmp_path):
    data = spelling((["ham"], ["spam"]), tmp_path)
    batch = next(iter(data.train_dataloader()))
    error = Answers().error(llm.scores(batch.x)[0], batch)
    assert ((error >= 0) & (error <= 1)).all()
