"""The chat in a terminal: columns side by side, drawn while they are written."""

import io
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from lightning_steer.chat import commands
from lightning_steer.chat.columns import side_by_side
from lightning_steer.chat.session import Session
from lightning_steer.errors import sentences
from lightning_steer.escapes import for_terminal, say

PROMPT = "> "
EMPTY = "(nothing)"
"""Shown where the model ended its text at once."""


def chat(session: Session) -> None:
    """Talk until the user ends it; a mistake is answered with one sentence, and the chat goes on."""
    with suppress(ImportError):
        import readline  # noqa: F401  # input() then knows the arrow keys
    for stream, wrong in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace")):
        if isinstance(stream, io.TextIOWrapper):  # bytes that are no text are answered with a sentence
            stream.reconfigure(errors=wrong)
    say(opening(session))
    over = False
    while not over:
        try:
            line = _read()
        except KeyboardInterrupt:
            say("\n/quit ends the chat.")
            continue
        if line is None:
            return
        try:
            over = bool(line.strip()) and answered(session, line)
        except KeyboardInterrupt:  # a file being loaded, or Ctrl-C twice
            say("\nStopped.")
        except Exception as error:
            sentence = sentences.of_exception(error)
            if sentence is None:
                raise
            say(sentence)


def _read() -> str | None:
    """Read a line, at a prompt if somebody sits there; None at the end of the input."""
    if sys.stdin.isatty():
        try:
            return input(PROMPT)
        except EOFError:  # Ctrl-D
            say()
            return None
    line = sys.stdin.readline()
    return line.rstrip("\r\n") if line else None


def opening(session: Session) -> str:
    """Return what is said first."""
    model = session.llm
    kind = "its chat template is used" if model.chat else "every message is a text of its own that is continued"
    lines = [f"{model.name}: {kind}.", commands.setting(session), *(f"Note: {note}." for note in session.notes)]
    return "\n".join([*lines, "/help lists the commands, Ctrl-C stops an answer."])


def answered(session: Session, line: str) -> bool:
    """Answer a line; returns whether the chat is over."""
    if not line.startswith("/"):
        _answer(session, line)
        return False
    reply = commands.run(session, line)
    if reply.text:
        say(reply.text)
    for message in reply.ask:
        say(f"{PROMPT}{message}")
        if not _answer(session, message):
            break
    return reply.ends


def _answer(session: Session, message: str) -> bool:
    """Write the answer of every column; returns whether it was left to end."""
    heads = labels(session)
    with interruptible() as stopped:
        if sys.stdout.isatty():
            drawing = ColumnDrawing(heads, *shutil.get_terminal_size())
            drawing.end(session.ask(message, drawing.draw, stopped))
        else:
            for head, text in zip(heads, session.ask(message, stopped=stopped), strict=True):
                say(f"{head}: {text or EMPTY}")
        if stopped():
            say("Stopped.")
        return not stopped()


def labels(session: Session) -> list[str]:
    """Return the heads of the columns."""
    identity = session.identity_strength
    return ["baseline (unsteered)" if s == identity else f"strength {s:g}" for s in session.strengths]


class ColumnDrawing:
    """Columns that are drawn again after every token: as much as the screen holds, and all of it at the end.

    Args:
        heads: of the columns.
        width: cells of a line of the screen.
        height: lines of the screen.
    """

    def __init__(self, heads: Sequence[str], width: int, height: int) -> None:
        self.heads, self.width, self.height = heads, width - 1, height  # a full line would wrap on some terminals
        self.drawn = 0

    def draw(self, texts: Sequence[str]) -> None:
        """Replace what is drawn by the last lines of these texts."""
        self._replace(side_by_side(self.heads, [for_terminal(text) for text in texts], self.width)[2 - self.height :])

    def end(self, texts: Sequence[str]) -> None:
        """Replace what is drawn by the whole texts."""
        whole = [for_terminal(text) or EMPTY for text in texts]
        self._replace([*side_by_side(self.heads, whole, self.width), ""])

    def _replace(self, lines: Sequence[str]) -> None:
        back = f"\x1b[{self.drawn}A\r\x1b[J" if self.drawn else ""  # up, and erase to the end of the screen
        sys.stdout.write(back + "".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        self.drawn = len(lines)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """While the block runs, Ctrl-C turns what is yielded to True; pressed again, it interrupts as usual."""
    pressed = False

    def press(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
