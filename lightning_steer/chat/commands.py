"""What the user can say to the chat instead of to the model: lines that begin with a slash."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lightning_steer.chat.session import Session, check_text
from lightning_steer.errors import UserError
from lightning_steer.files import check_regular, write
from lightning_steer.resources import resource_path
from lightning_steer.vectors import load


class Reply(NamedTuple):
    """What a command says, and what is to be done next."""

    text: str
    ask: tuple[str, ...] = ()
    """Messages to be answered now, one after the other."""
    ends: bool = False
    """Whether the chat is over."""


class ChatCommand(NamedTuple):
    """A command, its help and what it does with the words after it."""

    usage: str
    help: str
    run: Callable[[Session, list[str]], Reply]


def run(session: Session, line: str) -> Reply:
    """Run a line that begins with a slash; raises ValueError or OSError in one sentence, and changes nothing then."""
    check_text(line)
    name, _, rest = line.strip().partition(" ")
    if name not in COMMANDS:
        raise UserError(
            f"there is no command {name[:40]!r}; commands are {', '.join(COMMANDS)} (a message that begins with a "
            "slash is sent with a blank before it)"
        )
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise UserError(f"a quotation mark in {rest[:60]!r} has no second one: add it, or leave it out") from error
    return COMMANDS[name].run(session, words)


def setting(session: Session) -> str:
    """Return what is steered and how strongly, in one sentence."""
    card = session.vector.card
    places = ", ".join(f"{site.part} {site.layer}" for site in card.sites)
    strengths = ", ".join(f"{strength:g}" for strength in session.strengths)
    plural = "strengths" if len(session.strengths) > 1 else "strength"
    return f"{card.method} at {places}, {plural} {strengths} ({card.strength.units})."


def restarted(session: Session) -> Reply:
    """Return what is set now, and what has become of the conversation."""
    again = " A new conversation begins; /again asks the same messages again." if session.messages else ""
    return Reply(setting(session) + again)


def _numbers(words: list[str]) -> list[float]:
    numbers = []
    for part in filter(None, ",".join(words).split(",")):
        try:
            numbers.append(float(part))
        except ValueError:
            raise UserError(f"{part[:40]!r} is no number: give strengths such as 0 1 2") from None
    return numbers


def _strength(session: Session, words: list[str]) -> Reply:
    if not words:
        return Reply(setting(session))
    session.set_strengths(_numbers(words))
    return restarted(session)


def _layer(session: Session, words: list[str]) -> Reply:
    if not words:
        return Reply(f"{setting(session)} The model has {session.llm.decoder.depth} blocks, counted from 0.")
    try:
        (layer,) = map(int, words)
    except ValueError:
        raise UserError(f"/layer takes one whole number, not {' '.join(words)[:40]!r}: /layer 3") from None
    session.set_layer(layer)
    return restarted(session)


def _vector(session: Session, words: list[str]) -> Reply:
    if not words:
        shown = session.at_strength(session.vector.card.strength.value)  # a moved vector has no measured effects
        return Reply(f"{shown}\n{setting(session)}")
    if len(words) > 1:
        raise UserError(f"/vector takes one file, not {len(words)}: put a name with blanks into quotation marks")
    session.set_vector(load(resource_path(words[0])))
    reply = restarted(session)
    return reply._replace(text=" ".join([reply.text, *(f"Note: {note}." for note in session.notes)]))


def _save(session: Session, words: list[str]) -> Reply:
    if not words:
        raise UserError("/save needs a file: NAME.safetensors for the vector, or NAME.jsonl for the conversation")
    path = Path(words[0])
    if path.suffix not in SAVERS:
        raise UserError(f"{path} ends in neither of {' and '.join(SAVERS)}: the first saves the vector, the second "
                         "the conversation")  # fmt: skip
    check_regular(path)
    if path.exists():
        raise UserError(f"{path} exists: name another file")
    return SAVERS[path.suffix](session, path, _numbers(words[1:]))


def _save_vector(session: Session, path: Path, strengths: list[float]) -> Reply:
    steering = strengths or [s for s in session.strengths if s != session.identity_strength]
    if len(steering) != 1:
        raise UserError(
            f"a vector is saved with one strength, and here are {len(steering)}: name one, such as /save {path} "
            f"{session.vector.card.strength.value:g}"
        )
    session.at_strength(steering[0]).save(path)
    return Reply(f"Saved the vector at strength {steering[0]:g} in {path}.")


def _save_conversation(session: Session, path: Path, strengths: list[float]) -> Reply:
    if strengths:
        raise UserError(f"a conversation is saved with all of its strengths: /save {path}")
    if not session.turns:
        raise UserError("there is no conversation to save yet: write a message first")
    card = session.vector.card
    rows = [
        {
            "turn": number,
            "message": turn.message,
            "strength": strength,
            "answer": answer,
            "model": session.llm.name,
            "method": card.method,
            "sites": [site.module for site in card.sites],
            "chat": session.llm.chat,
        }
        for number, turn in enumerate(session.turns)
        for strength, answer in zip(session.strengths, turn.answers, strict=True)
    ]
    write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return Reply(f"Saved {len(rows)} answers in {path}.")


def _again(session: Session, words: list[str]) -> Reply:
    _no_words("/again", words)
    if not session.messages:
        raise UserError("there is no message to ask again: write one first")
    session.turns = []
    return Reply("", ask=tuple(session.messages))


def _new(session: Session, words: list[str]) -> Reply:
    _no_words("/new", words)
    session.turns, session.messages = [], []
    return Reply("A new conversation begins.")


def _help(session: Session, words: list[str]) -> Reply:
    _no_words("/help", words)
    width = max(len(command.usage) for command in COMMANDS.values())
    lines = [f"{command.usage:<{width}}  {command.help}" for command in COMMANDS.values()]
    return Reply("\n".join([*lines, "Every other line is a message to the model."]))


def _quit(_session: Session, words: list[str]) -> Reply:
    _no_words("/quit", words)
    return Reply("", ends=True)


def _no_words(name: str, words: list[str]) -> None:
    if words:
        raise UserError(f"{name} takes nothing after it, not {' '.join(words)[:40]!r}")


SAVERS = {".safetensors": _save_vector, ".jsonl": _save_conversation}
"""What ``/save`` writes, by the end of the file's name."""
COMMANDS = {
    "/strength": ChatCommand("/strength 0 1 2", "set the strengths, a column each", _strength),
    "/layer": ChatCommand("/layer 3", "steer another block, counted from 0", _layer),
    "/vector": ChatCommand("/vector FILE", "steer with another vector; without a file, show the card", _vector),
    "/save": ChatCommand("/save FILE [STRENGTH]", "save the vector (.safetensors) or the conversation (.jsonl)", _save),
    "/again": ChatCommand("/again", "ask the messages of the conversation again, as the vector is set now", _again),
    "/new": ChatCommand("/new", "forget the conversation and begin another", _new),
    "/help": ChatCommand("/help", "show this list", _help),
    "/quit": ChatCommand("/quit", "end the chat", _quit),
}
