"""Run bad input in a forked process: everything is imported once, so that hundreds of cases take minutes."""

import os
import re
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lightning_steer.__main__ import main
from lightning_steer.report.__main__ import main as report_main

NOTICE = re.compile(
    r"$|Seed set to|GPU available|TPU available|HPU available|Using .*(precision|bit)|.*Automatic Mixed Precision|"
    r"Loading weights:|Epoch |Training:|Validation|Testing|Predicting|`Trainer\.fit` stopped|"
    r"Restoring states|Loaded model weights|Sanity Checking|.*AMP with fp16 is not supported on CPU|"
    r"Loading `train_dataloader` to estimate|rank_zero_warn\("
)
"""Lines of information, not of complaint, that Lightning and transformers print as well."""
LATE = (
    "mera model.init_args.strengths=",  # a method's range is known once the network is, and its answers are kept
    "full disk: ",  # found out by writing
    "toy checkpoint.monitor=",  # what is logged is known after the first validation
)
"""Names of the cases that are found out so late that the run has written into its own folders before, and why."""
LIMIT = 300
"""Seconds after which a case counts as hanging."""


class Case(NamedTuple):
    """A command that a user could have given, and what the answer must name."""

    name: str
    arguments: tuple[str, ...]
    expected: tuple[str, ...]
    """The value that is wrong, and what was expected; compared without regard to case."""
    files: Mapping[str, str | bytes] = {}
    """What lies in the working folder besides the models."""
    documented: tuple[str, str] | None = None
    """The file and the sentence in it that say that this is accepted; None if it is refused."""
    code: int = 2
    room: int | None = None
    """Bytes that a file may have; beyond, the system refuses to write, as on a full disk."""


class Outcome(NamedTuple):
    """What became of a command."""

    code: int
    out: str
    error: str
    new: list[str]
    """Files that were not there before, relative to the working folder."""


def run(case: Case, folder: Path, outputs: Path) -> Outcome:
    """Run the command in a forked process whose working folder is ``folder``; its output goes into ``outputs``."""
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    before = _files(folder)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        if case.room is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.room, case.room))
        _child(case.arguments, folder, outputs)
    watchdog = threading.Timer(LIMIT, os.kill, (child, 9))
    watchdog.start()
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # its id is not given to another process before it is reaped
    watchdog.cancel()
    watchdog.join()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out, error = ((outputs / name).read_text(errors="replace") for name in ("out", "err"))
    return Outcome(code, out, error, sorted(_files(folder) - before))


def _child(arguments: tuple[str, ...], folder: Path, outputs: Path) -> None:
    code = 1
    try:
        os.chdir(folder)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(outputs / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        sys.argv = ["lightning_steer", *arguments]
        code = report_main(list(arguments[1:])) if arguments[:1] == ("report",) else main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def faults(case: Case, outcome: Outcome) -> list[str]:
    """Everything about a refusal that is not as it should be; nothing if it is a good one."""
    lines = [line for line in re.split(r"[\r\n]", outcome.error) if not NOTICE.match(line.strip())]
    complaints = []
    if outcome.code != case.code:
        complaints.append(f"exit code {outcome.code}")
    if "Traceback" in outcome.error or "Traceback" in outcome.out:
        complaints.append("a traceback")
    refused = case.documented is None
    if refused and (len(lines) != 1 or not lines[0].startswith("lightning_steer: ")):
        complaints.append(f"{len(lines)} lines on stderr instead of one sentence")
    message = (outcome.error if refused else outcome.out).lower()
    complaints += [f"does not name {word!r}" for word in case.expected if word.lower() not in message]
    own = ("logs", "checkpoints") if case.name.startswith(LATE) else ()
    complaints += [f"wrote {name}" for name in outcome.new if refused and not name.startswith(own or "/")]
    return complaints
