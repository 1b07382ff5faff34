"""Measure the missing draws of the pocket models, then write ``docs/theory.md`` and its figures."""

import argparse
import json
import time
from functools import partial
from pathlib import Path

from lightning_steer.report.files import write_json
from lightning_steer.statistics import estimate
from lightning_steer.studies.processes import side_by_side
from lightning_steer.studies.theory import measuring, page, softmax
from lightning_steer.studies.theory.directions import PENALTIES, TOLERANCE
from lightning_steer.studies.theory.reading import GOALS

FIRST = 1
"""Draw 0 was looked at while this was written; it stands for itself, with more prompts."""
MANY = f"{measuring.MODELS[0]}-0"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the options of the study."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.theory", description=__doc__)
    add = parser.add_argument
    add("--draws", type=int, default=20, help="draws of prompts; intervals need 20")
    add("--processes", type=int, default=2, help="processes at work, one thread each")
    add("--out", type=Path, default=Path("logs/theory"), help="where numbers go")
    add("--page", type=Path, default=Path("docs/theory.md"), help="the page; its figures go to figures/ beside it")
    return parser.parse_args(argv)


def measure(options: argparse.Namespace, name: str) -> None:
    """Write the numbers of one draw of a model, unless they exist with these settings."""
    model, draw = name.split("-")
    rows = measuring.ROWS if int(draw) else measuring.MANY
    settings = json.loads(json.dumps({
        "goals": GOALS, "rows": rows, "penalties": PENALTIES, "tolerance": TOLERANCE,
        "effects": softmax.EFFECTS, "contexts": measuring.CONTEXTS, "statistics": estimate.VERSION,
    }))  # fmt: skip
    path = options.out / f"{name}.json"
    if not (path.is_file() and json.loads(path.read_text()).get("settings") == settings):
        result = measuring.measure_draw(model, int(draw), GOALS, rows)
        write_json(path, {"settings": settings, "goals": result})


def main(argv: list[str] | None = None) -> int:
    """Measure, then write the page."""
    options, start = arguments(argv), time.monotonic()
    names = {m: [f"{m}-{FIRST + k}" for k in range(options.draws)] for m in measuring.MODELS}
    jobs = [MANY, *(name for of in names.values() for name in of)]
    with side_by_side(options.processes) as run:
        for _ in run(partial(measure, options), jobs):
            pass
    measured = {name: json.loads((options.out / f"{name}.json").read_text())["goals"] for name in jobs}
    numbers = {model: [measured[name] for name in of] for model, of in names.items()}
    page.write(options.page, numbers, measured[MANY])
    print(f"{time.monotonic() - start:.0f} s; wrote {options.page}; numbers in {options.out}")
    return 0
