"""The chat: every column is what a row of its own would be, and no command breaks the conversation."""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from chats import BASE, TEMPLATE, TUNED, alone, direction, imported, threshold, tiny
from decoders import FAMILIES

from lightning_steer.chat import commands
from lightning_steer.chat.following import Follower
from lightning_steer.chat.session import Session
from lightning_steer.chat.strengths import strength_range
from lightning_steer.errors import sentences
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods import MERA
from lightning_steer.vectors import load

STRENGTHS = [0.0, 1.0, -3.0]
MESSAGES = ["the cat", "a dog sat, and"]


def session(llm: LLM | None = None, tokens: int = 8, **settings: Any) -> Session:
    llm = llm or tiny()
    return Session(llm, direction(llm), STRENGTHS, tokens, **settings)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_a_column_is_what_a_row_of_its_own_would_be(family: str, chat: bool) -> None:
    """Token for token, in a conversation that goes on: rows are of different length from its second message on."""
    llm = tiny(family, chat=chat)
    talk = session(llm)
    (vector,) = (method.vector for method in talk.vector.maps)
    histories = [""] * len(STRENGTHS)
    for message in MESSAGES:
        answers = talk.ask(message)
        for column, strength in enumerate(STRENGTHS):
            text = f"{histories[column]}{message}?" if chat else message
            assert answers[column] == alone(llm, text, strength * vector, 8, special=not chat)
            histories[column] = f"{text}{answers[column]}."
        assert len(set(answers)) > 1
    assert [turn.message for turn in talk.turns] == MESSAGES


@pytest.mark.parametrize("name", [BASE, TUNED], ids=["base", "tuned"])
def test_the_column_that_does_nothing_is_the_unsteered_model(name: str) -> None:
    llm = LLM(name, 2)
    llm.load()
    llm.chat = bool(llm.tokenizer.chat_template)
    assert llm.chat == (name == TUNED)
    talk = Session(llm, direction(llm), [6.0, 0.0], 12)
    for message in ("The hill bakers are", "In the morning, the grey"):
        steered, baseline = talk.ask(message)
        if not llm.chat:
            assert baseline == llm.generate(message, max_new_tokens=12)
        history = talk.turns[:-1] if llm.chat else []
        turns = [part for t in history for part in (("user", t.message), ("assistant", t.answers[1]))]
        spoken = [{"role": role, "content": text} for role, text in [*turns, ("user", message)]]
        text = llm.tokenizer.apply_chat_template(spoken, tokenize=False, add_generation_prompt=True) if turns else None
        if text:
            assert baseline == alone(llm, text, torch.zeros(()), 12, special=False)
        assert steered != baseline


def test_a_threshold_does_nothing_at_one() -> None:
    llm = tiny()
    talk = Session(llm, threshold(llm), None, 8)
    assert talk.strengths == [1.0, 0.1]
    baseline, steered = talk.ask("the cat")
    assert baseline == llm.generate("the cat", max_new_tokens=8) != steered
    steps = strength_range(talk.vector).steps
    assert steps[0] == MERA.identity_strength
    assert set(MERA.default_strengths) <= set(steps)
    with pytest.raises(ValueError, match=r"between 0 and 1, not at 1\.5"):
        talk.set_strengths([1.5])


def test_all_columns_are_written_in_one_batch() -> None:
    talk = session()
    rows: Counter[int] = Counter()
    block = talk.llm.model.get_submodule(talk.llm.sites[0])
    handle = block.register_forward_hook(lambda _block, _args, out: rows.update([len(out)]))
    try:
        talk.ask("the cat")
    finally:
        handle.remove()
    assert set(rows) == {3}
    assert rows[3] <= 8


@pytest.mark.parametrize("chat", [False, True])
def test_what_is_streamed_is_what_is_returned(chat: bool) -> None:
    talk, streamed = session(tiny(chat=chat)), []
    answers = talk.ask("the cat", streamed.append)
    assert streamed[-1] == answers
    assert len(streamed) > 2
    for before, after in itertools.pairwise(streamed):
        assert all(late.startswith(early) for early, late in zip(before, after, strict=True))


def test_half_a_character_is_not_shown_and_nothing_after_the_end() -> None:
    class Bytes:
        def batch_decode(self, rows: list[list[int]], **_: object) -> list[str]:
            return [bytes(row).decode("utf-8", "replace") for row in rows]

    seen: list[list[str]] = []
    follower = Follower(Bytes(), [0], seen.append, lambda: False)
    ids = torch.tensor([[65, *"é!".encode()], [65, 66, 0, 67]])
    for length in (2, 3, 4):
        assert not follower(ids[:, :length], None).any()
    assert seen == [["", "B"], ["é", "B\0"], ["é!", "B\0"]]


def test_a_stopped_answer_stays_as_far_as_it_went() -> None:
    whole = session().ask("the cat")
    talk, written = session(), []
    part = talk.ask("the cat", written.append, lambda: len(written) >= 3)
    assert len(written) == 4  # three tokens, and the whole at the end
    assert all(text.startswith(begun) and len(begun) < len(text) for text, begun in zip(whole, part, strict=True))
    assert talk.turns[-1].answers == part
    talk.turns = []
    assert talk.ask("the cat") == whole


def test_whatever_breaks_an_answer_leaves_the_model_as_it_was() -> None:
    talk = session()
    whole = talk.ask("the cat")

    def fail(_texts: list[str]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        talk.ask("the cat", fail)
    assert len(talk.turns) == 1
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in talk.llm.model.modules())
    assert talk.ask("the cat") == whole


def test_changes_begin_a_conversation_and_again_repeats_its_messages() -> None:
    talk = session(tiny(chat=True))
    for message in MESSAGES:
        talk.ask(message)
    first = talk.turns
    for line in ("/strength 0, 2", "/layer -1", "/layer 1", "/strength 0 1. -3"):
        assert "/again" in commands.run(talk, line).text
        assert talk.turns == []
    for message in commands.run(talk, "/again").ask:
        talk.ask(message)
    assert talk.turns == first
    assert talk.messages == MESSAGES
    commands.run(talk, "/new")
    assert (talk.turns, talk.messages) == ([], [])


def test_a_layer_is_that_of_a_vector_which_acts_there() -> None:
    llm = tiny()
    talk = session(llm)
    talk.set_strengths([0, 0.2, -0.2])
    answers = talk.ask("the cat")
    commands.run(talk, "/layer 2")
    moved = talk.ask("the cat")
    there = tiny(layer=2)
    (vector,) = (method.vector for method in talk.vector.maps)
    assert moved == [alone(there, "the cat", strength * vector, 8) for strength in talk.strengths]
    assert moved != answers
    assert moved[0] == answers[0]


def test_a_moved_vector_shows_no_effect_that_was_measured_elsewhere() -> None:
    talk = session()
    figure = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 9}
    card = talk.vector.card._replace(effect={"exact_match": figure}, drift={"reference_kl": figure})
    talk.set_vector(talk.vector._replace(card=card))
    assert "0.8" in commands.run(talk, "/vector").text
    commands.run(talk, "/layer 2")
    shown = commands.run(talk, "/vector").text
    assert "0.8" not in shown
    assert "Nothing was measured at this setting" in shown


def test_a_saved_vector_is_the_one_that_steers(tmp_path: Path) -> None:
    talk = session()
    commands.run(talk, "/layer 2")
    assert "strength 1" in commands.run(talk, f"/save {tmp_path}/v.safetensors 1").text
    vector = load(tmp_path / "v.safetensors")
    assert (vector.card.sites[0].layer, vector.card.strength.value) == (2, 1.0)
    assert vector.card.sites[0].module == talk.llm.site(2)
    assert not vector.card.effect  # measured elsewhere
    assert "Nothing was measured at this setting" in vector.card.warnings[0]
    assert Session(talk.llm, vector, STRENGTHS, 8).ask("the cat") == talk.ask("the cat")
    commands.run(talk, "/layer 1")
    commands.run(talk, "/strength 0 2")
    commands.run(talk, f'/save "{tmp_path}/a name.safetensors"')
    assert load(tmp_path / "a name.safetensors").card == direction(talk.llm).card


def test_a_saved_conversation_has_a_row_for_every_answer(tmp_path: Path) -> None:
    talk = session()
    for message in MESSAGES:
        talk.ask(message)
    commands.run(talk, f"/save {tmp_path}/talk.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "talk.jsonl").read_text().split("\n")[:-1]]
    assert [(row["turn"], row["strength"]) for row in rows] == [(turn, s) for turn in (0, 1) for s in STRENGTHS]
    assert [row["answer"] for row in rows] == [text for turn in talk.turns for text in turn.answers]


def test_help_names_every_command_and_a_bare_command_shows_what_is_set() -> None:
    talk = session()
    assert set(commands.COMMANDS) <= set(commands.run(talk, "/help").text.split())
    assert "strengths 0, 1, -3" in commands.run(talk, "/strength").text
    assert "4 blocks" in commands.run(talk, "/layer").text
    assert str(talk.vector) in commands.run(talk, "/vector").text
    assert commands.run(talk, "/quit").ends


BAD = [
    ("/strenght 1", "strenght"),
    ("/", "no command '/'"),
    ("//", "no command '//'"),
    ("/strength two", "'two'"),
    ("/strength 1 2 x", "'x'"),
    ("/strength nan", "nan"),
    ("/strength 0 inf", "inf"),
    ("/strength 1e400", "inf"),
    ("/strength ,", "0 strengths"),
    ("/strength 1 1", "1 occurs twice"),
    ("/strength 0 -0", "occurs twice"),
    ("/strength 1 2 3 4 5 6 7", "7 strengths"),
    ('/strength "1', "quotation mark"),
    ("/layer 4", "layer 4 does not exist"),
    ("/layer -5", "layer -5 does not exist"),
    ("/layer 1.5", "'1.5'"),
    ("/layer one", "'one'"),
    ("/layer 1 2", "'1 2'"),
    ("/layer 99999999999999999999", "99999999999999999999"),
    ("/vector nowhere.safetensors", "nowhere.safetensors"),
    ("/vector .", "no vector file ."),
    ("/vector a b", "one file, not 2"),
    ("/vector broken.safetensors", "broken.safetensors"),
    ("/vector other.safetensors", "fitted on"),
    ("/save", "needs a file"),
    ("/save vector.pt", "vector.pt"),
    ("/save there.jsonl", "there.jsonl exists"),
    ("/save link.safetensors", "link.safetensors is a link"),
    ("/save v.safetensors", "here are 2"),
    ("/save v.safetensors 1 2", "here are 2"),
    ("/save v.safetensors nan", "nan"),
    ("/save talk.jsonl 1", "with all of its strengths"),
    ("/save there.jsonl/talk.jsonl 1", "talk.jsonl"),
    ("/again now", "'now'"),
    ("/new one", "'one'"),
    ("/help me", "'me'"),
    ("/quit now", "'now'"),
    ("/layer \ud800", "UTF-8"),
    ("half a character \udcff", "UTF-8"),
    (" ", "empty"),
    ("a" * 300, "more than"),
]


@pytest.fixture(scope="module")
def short() -> LLM:
    return tiny(max_position_embeddings=200)


@pytest.mark.parametrize(("line", "words"), BAD, ids=[f"{i} {line[:24]!a}" for i, (line, _) in enumerate(BAD)])
def test_what_is_wrong_is_answered_by_a_sentence_and_changes_nothing(
    line: str, words: str, short: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 64)
    (tmp_path / "there.jsonl").write_text("mine")
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "there.jsonl")
    other = tiny(seed=5)
    direction(other).save("other.safetensors")
    talk = session(short)
    answers = talk.ask("the cat")
    before = (talk.vector, list(talk.strengths), list(talk.turns), talk.layers, list(talk.messages))
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    act = (lambda: commands.run(talk, line)) if line.startswith("/") else (lambda: talk.ask(line))
    with pytest.raises((ValueError, OSError)) as caught:
        act()
    sentence = sentences.of_exception(caught.value)
    assert sentence is not None
    assert words in sentence
    assert "\n" not in sentence
    assert len(sentence) < 400
    assert (talk.vector, talk.strengths, talk.turns, talk.layers, talk.messages) == before
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    talk.turns = []
    assert talk.ask("the cat") == answers


def test_a_strength_that_the_model_cannot_read_is_named_and_another_goes_on() -> None:
    talk = session()
    answers = talk.ask("the cat")
    commands.run(talk, "/strength 0 1e30")
    with pytest.raises(ValueError, match=r"strength 1e\+30 of MeanDifference .* nearer to 0"):
        talk.ask("the cat")
    assert talk.turns == []
    commands.run(talk, "/strength 0 1. -3")
    (message,) = commands.run(talk, "/again").ask
    assert talk.ask(message) == answers


def test_another_model_is_steered_on_purpose_alone() -> None:
    vector = direction(tiny(seed=5))
    with pytest.raises(ValueError, match="is another model"):
        Session(tiny(), vector)
    assert len(Session(tiny(), vector, STRENGTHS, 4, other_model=True).ask("the cat")) == 3


def test_an_imported_vector_steers_as_its_own_and_says_what_is_not_known(tmp_path: Path) -> None:
    talk = session()
    path = imported(talk.llm).save(tmp_path / "from elsewhere.safetensors")
    answers = talk.ask("the cat")
    assert talk.notes == []
    assert "names no model" in commands.run(talk, f"/vector '{path}'").text
    assert "names no model" in talk.notes[0]
    assert talk.strengths == [0, 2]
    talk.set_strengths(STRENGTHS)
    assert talk.ask("the cat") == answers


def test_a_vector_of_several_blocks_is_not_moved() -> None:
    llm = tiny()
    vector = direction(llm)
    sites = [vector.card.sites[0], *direction(tiny(layer=2)).card.sites]
    talk = Session(llm, vector._replace(maps=vector.maps * 2, card=vector.card._replace(sites=sites)), STRENGTHS, 4)
    with pytest.raises(ValueError, match="blocks 1, 2 together"):
        commands.run(talk, "/layer 3")
    assert talk.layers == [1, 2]
    assert len(talk.ask("the cat")) == 3


def test_a_conversation_without_a_template_is_refused() -> None:
    llm = tiny()
    with pytest.raises(ValueError, match="needs a chat template"):
        llm.generate([[{"role": "user", "content": "the cat"}]])
    llm.tokenizer.chat_template, llm.chat = TEMPLATE, True
    assert llm.generate([[{"role": "user", "content": "the cat"}]]) == llm.generate(["the cat"])
