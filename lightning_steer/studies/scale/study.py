"""Train the larger pocket model if it is missing, measure both sizes with the same rows, print what carried over.

What is done already is not done again: a stopped training or study goes on with the same command. One seed a size
was trained, so this compares two models, not two sizes.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from lightning_steer.report.files import write_json, write_text
from lightning_steer.studies.declaration import Question
from lightning_steer.studies.opening import open_once
from lightning_steer.studies.processes import side_by_side
from lightning_steer.studies.scale import declared, tables
from lightning_steer.studies.scale.declared import LARGE, SMALL
from lightning_steer.studies.scale.design import FULL, QUICK
from lightning_steer.studies.scale.parts import MeasuredPart, parts, settings, stored
from lightning_steer.studies.scale.training import train


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the options of the study."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.scale", description=__doc__)
    add = parser.add_argument
    add("--small", type=Path, default=Path("checkpoints/pocket"), help="folder of the shipped models' folders")
    add("--large", type=Path, default=Path("checkpoints/pocket_large"), help="the same of the larger ones")
    add("--only", nargs="+", default=[""], help="parts whose names begin so; tables are of whole questions, as mera")
    add("--processes", type=int, default=2, help="processes at work, one thread each")
    add("--out", type=Path, default=Path("logs/scale"), help="where numbers and tables go")
    add("--log", type=Path, default=Path("docs/scale-opened.jsonl"), help="where openings are logged")
    add("--quick", action="store_true", help="a few rows and steps, to see that everything runs; opens nothing")
    return parser.parse_args(argv)


def folder(options: argparse.Namespace, size: str) -> Path:
    """Return the folder of a size's models."""
    return options.small if size == SMALL else options.large


class Measurement:
    """Writes a part's file, unless it exists with these settings; other processes can run it.

    Args:
        options: of the study.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.design = options, QUICK if options.quick else FULL
        self.folder: Path = options.out / "quick" if options.quick else options.out

    def path(self, name: str) -> Path:
        """Return the file of a part."""
        return self.folder / "parts" / f"{name}.json"

    def parts(self) -> dict[str, MeasuredPart]:
        """Return the parts to be measured, of both sizes."""
        both = (parts(size, folder(self.options, size), self.design) for size in (SMALL, LARGE))
        prefixes = tuple(self.options.only)
        return {name: part for of in both for name, part in of.items() if name.startswith(prefixes)}

    def missing(self) -> list[str]:
        """Return the names of the parts that are not measured yet."""
        listed = self.parts().items()
        models = {name: folder(self.options, size_of(name)) for name, _ in listed}
        return [name for name, part in listed if stored(self.path(name), settings(part, models[name])) is None]

    def __call__(self, name: str) -> None:
        part = self.parts()[name]
        part_settings, start = settings(part, folder(self.options, size_of(name))), time.process_time()
        numbers = part.make()
        took = time.process_time() - start
        write_json(self.path(name), {"settings": part_settings, "processor_seconds": took, "numbers": numbers})

    def whole(self) -> list[Question]:
        """Return the questions all of whose parts are to be measured."""
        return [q for q in declared.QUESTIONS if f"{q.name.lower()}-x".startswith(tuple(self.options.only))]

    def numbers(self) -> dict[str, Any]:
        """Return all numbers by part."""
        return {name: json.loads(self.path(name).read_text())["numbers"] for name in self.parts()}


def size_of(name: str) -> str:
    """Return the size that a part's name tells."""
    return name.split("-")[1]


def main(argv: list[str] | None = None) -> int:
    """Train what is missing, measure what is missing, write and print the tables."""
    options, start = arguments(argv), time.monotonic()
    measure = Measurement(options)
    try:
        used = {(size_of(name), model): None for name, part in measure.parts().items() for model in part.used}
        for size, model in used:
            train(folder(options, size), size, model, options.quick)
        draws, openings = declared.DECLARATION.verdict_draws, []
        if not options.quick:
            openings = open_once(options.log, declared.DECLARATION, draws, sys.argv[1:] if argv is None else argv)
    except (FileNotFoundError, ValueError) as error:
        print(f"lightning_steer: {error}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    todo = measure.missing()
    with side_by_side(options.processes) as run, tqdm(total=len(todo), desc="scale", unit="part") as bar:
        for _ in run(measure, todo):
            bar.update()
    print(f"{time.monotonic() - start:.0f} s; numbers in {measure.folder}")
    if whole := measure.whole():
        models = {size: folder(options, size) for size in (SMALL, LARGE)}
        written = tables.text(whole, measure.numbers(), models, openings, measure.design)
        write_text(measure.folder / "scale.md", written)
        print(written)
    return 0
