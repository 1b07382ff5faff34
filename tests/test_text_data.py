"""Token batches: nothing is lost, doubled or depends on who reads it; a user's own files."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_continuations import drops_unknown

from lightning_steer.data.pocket.module import vocabulary
from lightning_steer.data.pocket.text import tokenizer
from lightning_steer.data.text import TextDataModule, read, rows_of
from lightning_steer.data.tokens import IGNORED, TextBatches, TextRow, by_length, together

ROWS = st.lists(st.integers(2, 30), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer folder, as a model's is."""
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer(vocabulary()).save_pretrained(path)
    return path


def made(path, content):
    path.write_text(content if isinstance(content, str) else "\n".join(map(json.dumps, content)))
    return str(path)


def rows_from(lengths):
    return [TextRow([i, *range(length - 1)]) for i, length in enumerate(lengths)]


@given(ROWS, st.integers(1, 8))
def test_groups_hold_every_row_once_and_none_is_empty(lengths, groups):
    rows, groups = rows_from(lengths), min(groups, len(lengths))
    groups_made = by_length(rows, groups)
    assert len(groups_made) == groups
    assert all(groups_made)
    assert sorted(row.ids[0] for group in groups_made for row in group) == list(range(len(rows)))
    sizes = [len(row.ids) for group in groups_made for row in group]
    assert sizes == sorted(sizes)


@given(ROWS, st.integers(1, 4))
def test_any_number_of_processes_sees_the_same_batch(lengths, world):
    rows = rows_from(lengths)
    whole = together(rows, 0)
    assert int(whole.total) == int((whole.labels != IGNORED).sum()) == sum(lengths) - len(lengths)
    shares = [together(rows, 0, slice(rank, None, world)) for rank in range(world)]
    assert all(torch.equal(part.total, whole.total) for part in shares)
    assert sum(int((part.labels != IGNORED).sum()) for part in shares) == int(whole.total)
    for rank, part in enumerate(shares):
        width = part.ids.shape[1]
        if len(part.ids):
            assert torch.equal(part.ids, whole.ids[rank::world, :width])
            assert torch.equal(part.labels, whole.labels[rank::world, :width])


def test_labels_are_the_ids_after_the_start():
    batch = together([TextRow([5, 6, 7], 2), TextRow([8, 9], 1)], pad=0)
    assert batch.ids.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch.labels.tolist() == [[IGNORED, IGNORED, 7], [IGNORED, 9, IGNORED]]


def test_an_item_depends_on_its_number_alone():
    def rows(block):
        return [TextRow([block, i, *range(i % 7)]) for i in range(40)]

    batches, other = (TextBatches(rows, 4, 0, slice(None), seed=3) for _ in range(2))
    forth = [batches[j].ids.tolist() for j in range(12)]
    assert forth == [other[j].ids.tolist() for j in reversed(range(12))][::-1]
    assert forth[:4] != forth[4:8]
    seen = sorted(row[1] for j in range(4) for row in forth[j])
    assert seen == list(range(40))


def test_text_file(folder, tmp_path):
    file = made(tmp_path / "a.txt", "The hill bakers are lazy.\n\nThey are\npolite.\n\n\n")
    assert read(tmp_path / "a.txt", ("text",)) == [("The hill bakers are lazy.",), ("They are\npolite.",)]
    data = TextDataModule(file, str(folder), val_share=0.5)
    data.setup()
    texts = [data.tokenizer.decode(batch.ids[0]) for batch in (*data.train_dataloader(), *data.val_dataloader())]
    assert sorted(texts) == ["<bos> The hill bakers are lazy. <eos>", "<bos> They are polite. <eos>"]


def test_only_the_completion_is_learned(folder, tmp_path):
    file = made(tmp_path / "a.jsonl", [{"p": "The hill bakers are", "c": " lazy."}] * 3)
    data = TextDataModule(file, str(folder), prompt="p", completion="c", val=file)
    data.setup()
    for batch in data.train_dataloader():
        learned = batch.labels[0][batch.labels[0] != IGNORED]
        assert data.tokenizer.decode(learned) == "lazy. <eos>"


def test_a_long_prompt_loses_its_beginning(folder):
    from transformers import AutoTokenizer

    reader = AutoTokenizer.from_pretrained(folder)
    (row,) = rows_of(reader, ("The hill bakers are", " lazy."), max_tokens=4)
    assert reader.decode(row.ids) == "are lazy. <eos>"
    assert reader.decode(row.ids[row.start :]) == "lazy. <eos>"


@pytest.mark.parametrize("quotes", [0, 1, 12])
def test_the_completion_begins_after_characters_that_a_tokenizer_drops(quotes):
    reader = drops_unknown()
    (row,) = rows_of(reader, ("He said " + "\u201c\u201d" * quotes + " it:", " the ham"), max_tokens=99)
    assert reader.decode(row.ids[row.start :]) == " the ham</s>"


@pytest.mark.parametrize("packed", [False, True])
def test_no_token_is_lost(folder, tmp_path, packed):
    sentence = "The hill bakers are lazy. " * 5
    file = made(tmp_path / "a.jsonl", [{"text": sentence}] * 7)
    data = TextDataModule(file, str(folder), val=file, max_tokens=16, packed=packed, tokens_per_step=40)
    data.setup()
    ids = [
        batch.ids[i][: int((row != IGNORED).sum()) + 1]
        for batch in data.val_dataloader()
        for i, row in enumerate(batch.labels)
    ]
    assert sum(map(len, ids)) == 7 * (5 * 6 + 2)
    assert max(map(len, ids)) <= 16


def test_an_epoch_visits_all_in_another_order(folder, tmp_path):
    file = made(tmp_path / "a.jsonl", [{"text": word} for word in vocabulary()[50:90]])
    data = TextDataModule(file, str(folder), val=file, tokens_per_step=12)
    data.setup()
    loader = data.train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        epochs.append([row[1] for batch in loader for row in batch.ids.tolist()])
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(
    ("name", "content", "more", "words"),
    [
        ("a.txt", "\n\n", {}, "empty"),
        ("a.txt", "one document", {}, "too few to set any aside"),
        ("a.txt", "x", {"prompt": "p", "completion": "c"}, "plain text and has no columns"),
        ("a.jsonl", '{"text": "x"}\n{"text": 3}', {}, "line 2"),
        ("a.jsonl", '{"text": "x"}\n{"txt": "x"}', {}, "line 2"),
        ("a.jsonl", "not json", {}, "line 1"),
        ("a.jsonl", "[1]", {}, "line 1"),
    ],
)
def test_bad_files_are_named(folder, tmp_path, name, content, more, words):
    file = made(tmp_path / name, content)
    data = TextDataModule(file, str(folder), val=None if "few" in words else file, **more)
    with pytest.raises(ValueError, match=words):
        data.setup()


@pytest.mark.parametrize(
    "more",
    [{"prompt": "p"}, {"packed": True, "prompt": "p", "completion": "c"}, {"max_tokens": 1}, {"val_share": 1.0}],
)
def test_bad_settings_are_refused_before_anything_is_read(more):
    with pytest.raises(ValueError, match=r"prompt|max_tokens"):
        TextDataModule("nowhere.txt", "nowhere", **more)


def test_a_missing_file_is_named(folder):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        TextDataModule("nowhere.txt", str(folder)).setup()
