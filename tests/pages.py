"""The fenced blocks of a document, run as a reader would who begins at the top of the page with a fresh checkout.

A page's blocks share one folder, which holds a copy of the checkout, and one Python session; pages share nothing.
``python`` is executed, ``console`` and ``bash`` are run line by line, a ``diff`` is applied. A comment in the line
before a block says what else to do with it::

    <!-- saved as: mine.yaml -->           write the block to this file, which the page names where a reader sees it
    <!-- not run: several machines -->     do nothing, for one of the reasons in REASONS
    <!-- printed -->                       see that the block before has printed each of these lines

A block in any other language that is not marked fails.
"""

import contextlib
import importlib
import io
import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?(?P<fence>`{3,}|~{3,})(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=fence)$",
    re.M | re.S,
)
REASONS = ("sets up .venv from the package index", "several devices", "several machines", "needs another tool", "a GPU")
"""Why a block may stay as it is: a short list, so that a block that could run does."""
CHECKOUT = ("configs", "lightning_steer", "tests", "docs", "checkpoints/pocket/base", "checkpoints/pocket/tuned")
CHECKOUT_FILES = ("README.md", "pyproject.toml", "Makefile")


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str
    mark: str
    """What the comment before it says, or nothing."""
    before: str
    """What a reader has read since the block before."""


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page; raises ValueError if a fence is left open or a mark is not known."""
    code_blocks, end = [], 0
    for match in FENCE.finditer(text):
        code_blocks.append(
            Block(match["language"].strip(), match["text"], match["mark"] or "", text[end : match.start()])
        )
        end = match.end()
    if text.count("\n```") + text.startswith("```") != 2 * sum("`" in match["fence"] for match in FENCE.finditer(text)):
        raise ValueError("a fence is not closed, or stands inside of another or of a list")
    for block in code_blocks:
        verb, _, rest = block.mark.partition(": ")
        if verb == "not run" and rest not in REASONS:
            raise ValueError(f"a block is not run because of {rest!r}, which is none of {', '.join(REASONS)}")
        if verb == "saved as" and f"`{rest}`" not in block.before and rest not in block.text.partition("\n")[0]:
            raise ValueError(f"a block is to be written to {rest}, but a reader is not told so")
        if verb not in ("saved as", "not run", "printed") and block.language not in LANGUAGES:
            raise ValueError(f"a block in {block.language or 'no language'} is neither run nor marked:\n{block.text}")
    return code_blocks


def shell(text: str) -> list[list[str]]:
    """The commands of a block, without its comments."""
    return [words for line in text.replace("\\\n", " ").splitlines() if (words := shlex.split(line, comments=True))]


def command(words: list[str]) -> None:
    """Run ``python -m MODULE ...``: our own here, pytest in a process of its own; any other is an error."""
    if words[:2] != ["python", "-m"]:
        raise ValueError(f"only python -m MODULE can be run, not {shlex.join(words)}")
    if words[2] == "pytest":
        subprocess.run([sys.executable, *words[1:]], check=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
        return
    module = f"{words[2]}.__main__" if words[2] in ("lightning_steer", "lightning_steer.report") else words[2]
    code = importlib.import_module(module).main(words[3:])
    if code != 0:
        raise RuntimeError(f"{shlex.join(words)} ended with exit code {code}")


def console(text: str, names: dict[str, Any]) -> None:
    """Run each line."""
    for words in shell(text):
        command(words)


def python(text: str, names: dict[str, Any]) -> None:
    """Execute in the page's session."""
    exec(compile(text, "block", "exec"), names)


def diff(text: str, names: dict[str, Any]) -> None:
    """Change the reader's files."""
    subprocess.run(["git", "apply", "-"], input=text, text=True, check=True)


LANGUAGES: dict[str, Callable[[str, dict[str, Any]], None]] = {
    "python": python,
    "console": console,
    "bash": console,
    "diff": diff,
}


def check_printed(text: str, output: str) -> None:
    """Raise ValueError unless each line of a block stands in what was printed, whatever the blanks between words."""
    all_words = " ".join(output.split())
    for line in text.splitlines():
        if " ".join(line.split()) not in all_words:
            raise ValueError(f"a document shows the line {line!r}, which is not in what its command prints: {output}")


def checkout(root: Path, folder: Path) -> None:
    """A fresh copy of what a reader has."""
    for name in CHECKOUT:
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in CHECKOUT_FILES:
        shutil.copy(root / name, folder / name)


def _session(page: list[Block], folder: Path, answer: Any) -> None:
    """Run the blocks, in a process of its own."""
    done: list[str] = []
    try:
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        names: dict[str, Any] = {"__name__": "__main__"}
        for block in page:
            verb, _, rest = block.mark.partition(": ")
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                if verb == "saved as":
                    Path(rest).parent.mkdir(parents=True, exist_ok=True)
                    Path(rest).write_text(block.text)
                elif verb == "printed":
                    check_printed(block.text, done[-1])
                elif verb != "not run":
                    LANGUAGES[block.language](block.text, names)
            done.append(printed.getvalue())
        answer.send((done, None))
    except BaseException:  # also what ends a program: it goes to the test, which says where it came from
        answer.send((done, traceback.format_exc()))


def run(page: list[Block], folder: Path) -> list[str]:
    """What each block has printed; raises AssertionError with the traceback of the one that failed."""
    changed = any(block.language == "diff" or block.mark.startswith("saved as: lightning_steer/") for block in page)
    # a fork has imported the project already, which saves seconds; where the page changes it, it is imported anew
    context: Any = multiprocessing.get_context("spawn" if changed else "fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_session, args=(page, folder, send))
    process.start()
    send.close()
    try:
        done, error = receive.recv()
    except EOFError:
        done, error = [], "the process ended without an answer"
    process.join()
    assert error is None, f"{error}\nin the block\n{page[len(done)].text}"
    return done
