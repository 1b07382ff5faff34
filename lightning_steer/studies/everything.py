"""Make all tables and pages anew: every study, one after another, then the pages that quote them.

It says beforehand what it will take, and goes on where it was stopped: a study that has ended with this very code is
not run again, and one that was stopped goes on from its own finished parts.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import lightning_steer
from lightning_steer.escapes import say
from lightning_steer.files import is_regular, write
from lightning_steer.progress import duration

LOG = Path("logs/everything.json")
"""What has ended: ``{name: {"code", "seconds"}}``."""
PAGES = ("toy-laboratory", "results", "mera", "fidelity", "scale-of-conclusions")
"""Pages with tables that are quoted from logs."""


class StudyStep(NamedTuple):
    """One command."""

    name: str
    minutes: float | None
    """Measured once, on two cores of a virtual machine without a GPU, some beside other work; None if it was not."""
    command: tuple[str, ...]
    """After ``python``."""


def study(name: str, minutes: float | None, *options: str, module: str = "") -> StudyStep:
    """Return the step that runs a study's module."""
    return StudyStep(name, minutes, ("-m", f"lightning_steer.studies.{module or name}", *options))


STEPS = (
    study("toy", 10),
    study("mera", 21),
    study("mera, verdict", 9, "--verdict", module="mera.crossed"),
    study("mera, priors", None, module="mera.crossed.priors"),
    study("mera, strengths", 2, module="mera.crossed.strengths"),
    study("mera, layers", 8, module="mera.crossed.layers"),
    study("fidelity", 12),
    study("fidelity, further", 3, "--further", module="fidelity"),
    study("arena", 15, "--processes", "2", "--verdict"),
    study("coverage", 30),
    study("coverage, choices", 1, module="coverage.choices"),
    study("search", 4),
    study("gates", 1),
    study("preventive", None),
    study("theory", 3),
    study("scale", None),
    StudyStep("benchmarks", 30, ("benchmarks/all.py",)),
    StudyStep("pages", 0.1, ("-m", "lightning_steer.report.quote", *(f"docs/{page}.md" for page in PAGES))),
)
"""The pocket models are not trained again: all tables but those of toy and scale are about the ones that ship."""


def expected(step: StudyStep) -> str:
    """Return how long a step may take, as far as it was measured."""
    return "time not known" if step.minutes is None else f"about {duration(60 * step.minutes)}"


def code() -> str:
    """Return a digest of all that a study runs: the package's sources."""
    folder = Path(lightning_steer.__file__).parent
    hashed = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        hashed.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return hashed.hexdigest()[:16]


def main(
    argv: list[str] | None = None, steps: Sequence[StudyStep] = STEPS, run: Callable[[Sequence[str]], int] | None = None
) -> int:
    """Say what is to be done, do it, and say what it took; the exit code of the first command that fails."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.everything", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="say what would be run and how long it may take")
    options = parser.parse_args(argv)
    ended, version = json.loads(LOG.read_text()) if is_regular(LOG) else {}, code()
    left = [step for step in steps if ended.get(step.name, {}).get("code") != version]
    for step in steps:
        done = step not in left
        took = f"ended, took {duration(ended[step.name]['seconds'])}" if done else expected(step)
        say(f"{step.name}: {took}; python {' '.join(step.command)}")
    total, unknown = sum(60 * (step.minutes or 0) for step in left), sum(step.minutes is None for step in left)
    more = f", and {unknown} whose time was never measured" if unknown else ""
    say(f"{len(left)} of {len(steps)} are left: about {duration(total)} on two cores{more}.")
    if options.dry_run:
        return 0
    start = time.monotonic()
    for number, step in enumerate(left):
        say(f"\n{step.name} ({number + 1} of {len(left)}), {expected(step)}")
        began = time.monotonic()
        result = (run or _run)(step.command)
        if result:
            say(f"{step.name} ended with exit code {result}: the same command goes on from here.", error=True)
            return result
        ended[step.name] = {"code": version, "seconds": round(time.monotonic() - began, 1)}
        write(LOG, json.dumps(ended, indent=1).encode())
    say(f"\nEverything is done in {duration(time.monotonic() - start)}; about {duration(total)} were expected{more}.")
    return 0


def _run(command: Sequence[str]) -> int:
    return subprocess.run([sys.executable, *command], check=False).returncode  # noqa: S603  # our own


if __name__ == "__main__":
    sys.exit(main())
