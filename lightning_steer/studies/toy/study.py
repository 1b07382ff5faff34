"""``make toy-study``: run the missing parts, then draw figures and tables."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from lightning_steer.report.files import write_json
from lightning_steer.studies.processes import side_by_side
from lightning_steer.studies.toy import cells, law, reproduction
from lightning_steer.studies.toy import tables as toy_study
from lightning_steer.studies.toy.networks import trained
from lightning_steer.studies.toy.settings import AXES, CHECKS, REPORT_NONE, REPORT_PROJECTION, NetworkKind, ToyCell

SIZES = (4, 8, 32, 128, 512, 2048)
RESIDUALS = ("none", "pad", "concat", "projection")
LAW_STEPS = {"none": 1000, "pad": 600, "concat": 600, "projection": 600}


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the options of the study."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.toy", description=__doc__)
    add = parser.add_argument
    add("--networks", type=int, default=8, help="networks of each small kind, each of a world of its own")
    add("--sets", type=int, default=3, help="target sets for each network")
    add("--sizes", type=int, nargs="+", default=list(SIZES), help="budgets in pairs, choosing included")
    add("--steps", type=int, default=400, help="steps of the methods that are trained")
    add("--report-networks", type=int, default=5, help="networks of the report's size for the reproduction")
    add("--check-networks", type=int, default=3, help="networks of the report's size for the two checks")
    add("--attributes", type=int, default=10, help="target attributes for each of them")
    add("--law-networks", type=int, default=2, help="networks for each point of the law")
    add("--train-share", type=float, default=1.0, help="share of the networks' training steps; below 1 for a look only")
    add("--processes", type=int, default=torch.get_num_threads(), help="processes at work, one thread each")
    add("--out", type=Path, default=Path("logs/toy_study"), help="where numbers and figures go")
    add("--networks-in", type=Path, default=Path("checkpoints/toy_study"), help="where trained networks are kept")
    add("--only", nargs="+", default=None, help="names of parts to run, as they stand in the progress bar")
    options = parser.parse_args(argv)
    least = {
        "networks": 2,
        "sets": 1,
        "steps": 1,
        "report_networks": 2,
        "check_networks": 2,
        "attributes": 1,
        "law_networks": 1,
        "processes": 1,
    }
    for name, minimum in least.items():
        if getattr(options, name) < minimum:
            parser.error(f"--{name.replace('_', '-')} must be at least {minimum}, not {getattr(options, name)}")
    if not 0 < options.train_share <= 1:
        parser.error(f"--train-share lies in (0, 1], not {options.train_share}")
    if min(options.sizes) < 2:
        parser.error(f"--sizes are at least 2 pairs, not {min(options.sizes)}")
    return options


class ToyPart(NamedTuple):
    """One file of the study."""

    kind: NetworkKind
    networks: int
    settings: dict[str, Any]
    """Other settings that its numbers depend on; if they change, the part runs again."""
    make: Callable[[], dict[str, Any]]


def parts(options: argparse.Namespace) -> dict[str, ToyPart]:
    """Return all parts by name, the longest first."""
    folder, n, attributes = options.networks_in, options.report_networks, options.attributes
    by_name: dict[str, ToyPart] = {}

    def add(name: str, kind: NetworkKind, networks: int, make: Callable[[], dict[str, Any]], **settings: Any) -> None:
        all_settings = {"network": kind.name, "networks": networks, "trained": kind.steps, **settings}
        by_name[name] = ToyPart(kind, networks, json.loads(json.dumps(all_settings)), make)

    def shorter(kind: NetworkKind) -> NetworkKind:
        return kind._replace(steps=max(1, round(options.train_share * kind.steps)))

    adapters = {"sets": options.sets, "sizes": options.sizes, "steps": options.steps}
    counts = [*((cell, options.check_networks) for cell in CHECKS), *((cell, options.networks) for cell in AXES)]
    for listed, networks in counts:
        cell = listed._replace(network=shorter(listed.network))

        def run(cell: ToyCell = cell, networks: int = networks) -> dict[str, Any]:
            return cells.run(cell, networks, options.sets, options.sizes, options.steps, None, folder)

        add(cell.name, cell.network, networks, run, cell=cell.name, **adapters)
    none, projection = shorter(REPORT_NONE), shorter(REPORT_PROJECTION)
    for kind in (none, projection):
        make = partial(reproduction.vectors, kind, n, attributes, folder)
        add(f"vectors-{kind.residual}", kind, n, make, attributes=attributes)
    make = partial(reproduction.trained_methods, projection, n, attributes, options.train_share, folder)
    add("trained-projection", projection, n, make, attributes=attributes, recipes=reproduction.RECIPES)
    for values in (2, 4, 8, 16):
        for residual in RESIDUALS:
            kind = shorter(NetworkKind(16, values, 64, (256, 256, 256), LAW_STEPS[residual], 2e-3, residual))
            make = partial(law.measure, ToyCell("law", residual, kind, 1), options.law_networks, 8, folder)
            add(f"law-{values}-{residual}", kind, options.law_networks, make)
    return by_name


def train(options: argparse.Namespace, name: str) -> None:
    """Train those networks of a part that are missing."""
    part = parts(options)[name]
    trained(part.kind, part.networks, options.networks_in)


def measure(options: argparse.Namespace, name: str) -> None:
    """Write a part's file, unless it exists with these settings."""
    part, path = parts(options)[name], options.out / "parts" / f"{name}.json"
    if not (path.is_file() and json.loads(path.read_text()).get("settings") == part.settings):
        write_json(path, {"settings": part.settings, **part.make()})


def main(argv: list[str] | None = None) -> int:
    """Run the study, write its figures, print its tables."""
    options = arguments(argv)
    todo, start = parts(options), time.monotonic()
    if unknown := sorted(set(options.only or ()) - todo.keys()):
        print(f"lightning_steer: no such parts: {unknown}; there are {', '.join(todo)}", file=sys.stderr)
        return 2
    names = [name for name in todo if name in (options.only or todo)]
    largest = {}  # for every kind of network, the part that needs most of them
    for name in sorted(names, key=lambda name: todo[name].networks):
        largest[todo[name].kind] = name
    with (
        tqdm(total=len(largest) + len(names), desc="toy study: train", unit="part") as bar,
        side_by_side(options.processes) as run,
    ):
        for work, part_names in ((train, largest.values()), (measure, names)):
            for _ in run(partial(work, options), list(part_names)):
                bar.update()
            bar.set_description("toy study: measure")
    axes = [(cell.axis, cell.level, cell.name) for cell in (*AXES, *CHECKS)]
    print(toy_study.write(options.out, axes))
    print(f"{time.monotonic() - start:.0f} s; figures and tables in {options.out}")
    return 0
