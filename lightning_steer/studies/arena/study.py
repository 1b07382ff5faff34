"""``make arena``: run the missing parts, then write the page; ``--verdict`` opens the seeds that were kept back."""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from lightning_steer.data.pocket import behaviours
from lightning_steer.report.files import write_json
from lightning_steer.resources import resource_path
from lightning_steer.statistics import estimate
from lightning_steer.studies.arena import cost, declared, language, page, toy
from lightning_steer.studies.arena.entrants import RANDOM, REFERENCE, entrants
from lightning_steer.studies.arena.tasks import LANGUAGE
from lightning_steer.studies.opening import open_once
from lightning_steer.studies.processes import side_by_side

Part = tuple[dict[str, Any], Callable[[], dict[str, Any]]]


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the options of the study."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.arena", description=__doc__)
    add = parser.add_argument
    add("--tasks", nargs="+", default=list(LANGUAGE), choices=LANGUAGE, help="the pocket language's tasks")
    add(
        "--tuned",
        nargs="*",
        default=list(behaviours.NAMES),
        choices=LANGUAGE,
        help="those that run on the tuned model, too",
    )
    add("--methods", nargs="+", default=None, help="methods by the names of their files; all of them by default")
    add("--processes", type=int, default=torch.get_num_threads(), help="processes at work, one thread each")
    add("--out", type=Path, default=Path("logs/arena"), help="where numbers go")
    add(
        "--page",
        type=Path,
        default=Path("docs/which-method.md"),
        help="the page; its figure goes to figures/ beside it",
    )
    add("--log", type=Path, default=Path("docs/arena-opened.jsonl"), help="where openings are logged")
    add("--networks-in", type=Path, default=Path("checkpoints/toy_study"), help="where trained toy networks are kept")
    add("--quick", action="store_true", help="one task, one toy cell, hardly trained; for a look only")
    add("--verdict", action="store_true", help="open the seeds that were kept back, for the declared contrasts")
    add("--only", nargs="+", default=None, help="names of parts to run; the page is not written then")
    options = parser.parse_args(argv)
    if options.quick:
        options.tasks, options.tuned = options.tasks[:1], []
    return options


def digest(folder: Path) -> str:
    """Return a fingerprint of a model's weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


def parts(options: argparse.Namespace) -> dict[str, Part]:
    """Return ``{name: (settings, function)}`` of all parts, those that explore first."""
    listed = [
        e
        for e in entrants()
        if options.methods is None or e.name.split(" ")[0] in {*options.methods, REFERENCE, RANDOM}
    ]
    few = [e for e in listed if e.name in declared.NAMES]
    many_pairs = [e for e in listed if e.name in declared.MANY]
    scale = language.QUICK if options.quick else language.LanguageScale()
    by_name: dict[str, Part] = {}

    def add(name: str, make: Callable[[], dict[str, Any]], competing: list[Any], **settings: Any) -> None:
        methods = {entrant.name: entrant.settings for entrant in competing}
        every = {**settings, "methods": methods, "statistics": estimate.VERSION, "search": language.VERSION}
        by_name[name] = (json.loads(json.dumps(every)), make)

    def speak(prefix: str, competing: list[Any], seed: int, **more: Any) -> None:
        tuned = [("tuned", task) for task in options.tuned] if not prefix else []
        for model, task in [("base", task) for task in options.tasks] + tuned:
            folder = Path(resource_path(f"checkpoints/pocket/{model}"))
            sizes = (8,) if model == "base" and task in behaviours.NAMES and not prefix and not options.quick else ()
            sized = scale._replace(sizes=sizes)
            make = partial(language.run, folder, task, seed, sized, competing, not prefix)
            add(f"{prefix}language-{model}-{task}-{seed}", make, competing,
                weights=digest(folder), scale=sized._asdict(), **more)  # fmt: skip

    def calculate(prefix: str, competing: list[Any], seeds: tuple[int, ...], **more: Any) -> None:
        size = toy.QUICK if options.quick else toy.ToyScale()
        size = size._replace(sizes=()) if prefix else size
        for cell in toy.CELLS[:1] if options.quick else toy.CELLS[-1:] if prefix else toy.CELLS:
            cell = cell._replace(network=toy.shorter(cell.network, size.train_share))
            make = partial(toy.run, cell, seeds, size, competing, options.networks_in)
            add(f"{prefix}toy-{cell.name}", make, competing, seeds=seeds, scale=size._asdict(), **more)

    speak("", listed, declared.SEED)
    calculate("", listed, (declared.SEED,))
    add("cost", partial(cost.run, listed, 1 if options.quick else 5, scale), listed, scale=scale._asdict())
    if options.verdict:
        for seed in declared.KEPT:
            speak("verdict-", few, seed, declaration=declared.DECLARATION.digest())
        last = [e for e in listed if e.name in declared.AGAIN_NAMES]
        for seed in declared.AGAIN_SEEDS:
            speak("again-", last, seed, declaration=declared.AGAIN.digest())
        calculate("verdict-", many_pairs, declared.KEPT, declaration=declared.DECLARATION.digest())
    return by_name


def measure(options: argparse.Namespace, name: str) -> None:
    """Write a part's file, unless it exists with these settings."""
    settings, make = parts(options)[name]
    path = options.out / "parts" / f"{name}.json"
    if not (path.is_file() and json.loads(path.read_text()).get("settings") == settings):
        start = time.process_time()
        result = make()
        write_json(path, {"settings": settings, "processor_seconds": time.process_time() - start, **result})


def main(argv: list[str] | None = None) -> int:
    """Run missing parts, write the page."""
    options, start = arguments(argv), time.monotonic()
    todo = parts(options)
    names = [name for name in todo if options.only is None or name in options.only]
    if unknown := sorted(set(options.only or ()) - todo.keys()):
        print(f"lightning_steer: no such parts: {unknown}; there are {', '.join(todo)}", file=sys.stderr)
        return 2
    try:
        if options.verdict:
            command = ["python", "-m", "lightning_steer.studies.arena", *(sys.argv[1:] if argv is None else argv)]
            for declaration in (declared.DECLARATION, declared.AGAIN):
                open_once(options.log, declaration, declaration.verdict_draws, command)
    except ValueError as error:
        print(f"lightning_steer: {error}", file=sys.stderr)
        return 2
    with side_by_side(options.processes) as run, tqdm(total=len(names), desc="arena", unit="part") as bar:
        for _ in run(partial(measure, options), names):
            bar.update()
    if options.only is None:
        page.write(options)
        print(f"wrote {options.page}")
    print(f"{time.monotonic() - start:.0f} s; numbers in {options.out}")
    return 0
