"""The chat in a terminal: typed into a pseudo-terminal, and drawn so that nothing is left but the last table."""

import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest
from chats import BASE, alone, direction, saved, tiny
from commands import LIMIT
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from lightning_steer.__main__ import main
from lightning_steer.chat.columns import GAP, cells, column_width, side_by_side, wrap
from lightning_steer.chat.terminal import ColumnDrawing, interruptible
from lightning_steer.lm.language_model import LLM
from lightning_steer.vectors import load

LONG = 100_000
"""Tokens of an answer that nobody waits for."""


OWN_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell starts its background jobs with Ctrl-C ignored
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C is sent to the process that the terminal belongs to
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Typed:
    """``python -m lightning_steer ARGUMENTS`` with somebody at its terminal."""

    def __init__(self, arguments: list[str], folder: Path, columns: int = 80, lines: int = 24) -> None:
        self.master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        command = [sys.executable, "-c", OWN_TERMINAL, "-m", "lightning_steer", *arguments]
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.seen = ""

    def __enter__(self) -> "Typed":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def until(self, pattern: str) -> str:
        """Return what is shown up to a pattern, and forget it."""
        while (match := re.search(pattern, self.seen)) is None:
            assert select.select([self.master], [], [], LIMIT)[0], f"hangs before {pattern!r}: {self.seen!r}"
            try:
                piece = os.read(self.master, 1 << 16).decode(errors="replace").replace("\r\n", "\n")
            except OSError:  # the other end is closed
                piece = ""
            assert piece, f"ended before {pattern!r}: {self.seen!r}"
            self.seen += piece
        shown, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return shown

    def type(self, text: str) -> None:
        os.write(self.master, text.encode("utf-8", "surrogateescape"))


def test_a_conversation_in_a_terminal(tmp_path: Path) -> None:
    llm = tiny(max_position_embeddings=1 << 20, eos_token_id=None)
    model, vector = saved(llm, tmp_path)
    arguments = ["chat", "--llm", str(model), "--vector", str(vector), "--max_new_tokens", str(LONG)]
    with Typed(arguments, tmp_path) as chat:
        opening = chat.until(r"\n> ")
        assert "MeanDifference at block 1, strengths 0, 2" in opening
        chat.type("/strength 0 two\n")
        assert "'two' is no number" in chat.until(r"\n> ")
        chat.type("\udcff\n")
        assert "no text in UTF-8" in chat.until(r"\n> ")
        chat.type("\x03\n")  # a signal in the moment before readline waits is seen with the next key
        chat.until(r"/quit ends the chat\.\n")
        chat.type("/strength 0 .5 -1\n")
        chat.until(r"strengths 0, 0\.5, -1 .*\n> ")
        chat.type("the cat\n")
        chat.until(r"baseline \(unsteered\) +│ strength 0\.5 +│ strength -1\n[^\n]*[a-z]")
        chat.type("\x03")  # while the answer is written
        chat.until(r"Stopped\.\n> ")
        chat.type("/save talk.jsonl\n")
        chat.until(r"Saved 3 answers in talk\.jsonl\.\n> ")
        chat.type("/quit\n")
        assert chat.process.wait(LIMIT) == 0
    answers = [json.loads(line) for line in (tmp_path / "talk.jsonl").read_text().split("\n")[:-1]]
    (shift,) = (method.vector for method in direction(llm).maps)
    for answer in answers:
        begun = alone(llm, "the cat", answer["strength"] * shift, 12)
        assert answer["answer"][: len(begun)] == begun[: len(answer["answer"])]
    assert any(answer["answer"] for answer in answers)


@pytest.mark.parametrize("name", ["base", "tuned"])
def test_lines_from_a_pipe_are_answered_in_order(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(ROOT / "checkpoints/pocket" / name)
    llm = LLM(folder, 2)
    llm.load()
    vector = direction(llm).save(tmp_path / "v.safetensors")
    lines = tmp_path / "lines"
    lines.write_text("The hill bakers are\n\n/layer 9\n/strength 0\n/again\n")
    with lines.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        options = ["--strengths", "0", "6", "--max_new_tokens", "6"]
        code = main(["chat", "--llm", folder, "--vector", str(vector), *options])
    printed = capfd.readouterr().out.split("\n")
    assert code == 0
    llm.chat = name == "tuned"
    baseline = llm.generate("The hill bakers are", max_new_tokens=6)
    with load(vector).applied_to(llm, 6.0):
        steered = llm.generate("The hill bakers are", max_new_tokens=6)
    assert printed[3:6] == [
        f"baseline (unsteered): {baseline or '(nothing)'}",
        f"strength 6: {steered or '(nothing)'}",
        f"layer 9 does not exist: {folder} has 5, counted from 0",
    ]
    assert printed[-3:] == ["> The hill bakers are", f"baseline (unsteered): {baseline or '(nothing)'}", ""]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--vector", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--vector", "v.safetensors", "--max_new_tokens", "0"], "max_new_tokens"),
        (["--vector", "v.safetensors", "--strengths", "nan"], "nan"),
        (["--vector", "v.safetensors", "--strengths", "1", "1"], "occurs twice"),
        (["--vector", "v.safetensors", "--port", "80"], "--web"),
        (["--vector", "v.safetensors", "--web", "--port", "70000"], "70000"),
        (["--vector", "v.safetensors", "--dtype", "float8"], "float8"),
    ],
)
def test_wrong_options_are_one_sentence(
    options: list[str], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "--web" in options:
        pytest.importorskip("uvicorn", reason="the extra `web` is not installed")
    monkeypatch.chdir(tmp_path)
    llm = LLM(BASE, 2)
    llm.load()
    direction(llm).save("v.safetensors")
    capfd.readouterr()
    assert main(["chat", "--llm", BASE, *options]) == 2
    lines = [line for line in capfd.readouterr().err.split("\n") if line and "Loading weights" not in line]
    assert len(lines) == 1
    assert words in lines[0]


def test_without_the_extra_the_page_is_refused_in_a_sentence(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_steer.chat.extra.find_spec", lambda _name: None)
    assert main(["chat", "--llm", BASE, "--vector", "v.safetensors", "--web"]) == 2
    assert "pip install -e '.[web]'" in capfd.readouterr().err


# ---- drawing


def screen(written: str) -> list[str]:
    """What a terminal shows that is given these characters: the lines, those scrolled away included."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\d*[A-Z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1])
        elif part == "\x1b[J":
            lines[row:] = [lines[row][:column]]
        else:
            lines[row] = lines[row][:column] + part + lines[row][column + len(part) :]
            column += len(part)
    return lines


TEXT = st.text(st.sampled_from("ab -é漢\n\t.\u0301"), max_size=80)


@given(st.lists(TEXT, min_size=1, max_size=4), st.integers(20, 100), st.integers(4, 40), st.integers(1, 9))
def test_the_last_drawing_is_all_that_stays(texts: list[str], width: int, height: int, step: int) -> None:
    heads = [f"strength {i}" for i in range(len(texts))]
    written: list[str] = []

    class Out:
        def write(self, text: str) -> None:
            written.append(text)

        def flush(self) -> None: ...

    drawing = ColumnDrawing(heads, width, height)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Out())
        for length in range(1, max(map(len, texts)) + 1, step):
            drawing.draw([text[:length] for text in texts])
            assert drawing.drawn < height  # what has left the screen cannot be drawn again
        drawing.end(texts)
    shown = screen("".join(written))
    assert shown == [*side_by_side(heads, [text or "(nothing)" for text in texts], width - 1), "", ""]
    assert all(cells(line) < width for line in shown)


@given(TEXT, st.integers(2, 40))
def test_wrapping_keeps_every_character_and_the_width(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(cells(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert [line for line in text.split("\n") if line.strip()] == [] or any(lines)


def test_columns_stand_beside_each_other_or_below() -> None:
    wide = f"漢字{' ' * 16}"  # two cells each
    assert side_by_side(["a", "b"], ["漢字", "one two"], 43) == [f"{'a':<20}{GAP}b", f"{wide}{GAP}one two"]
    assert column_width(2, 43) == 20
    assert side_by_side(["a", "b"], ["one", "two"], 30) == ["a:", "one", "", "b:", "two", ""]


def test_a_text_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    ColumnDrawing(["a"], 40, 10).end(["\x1b[2J\x07\x9b"])
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", capsys.readouterr().out) == []


def test_one_interrupt_stops_and_two_break_off() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
