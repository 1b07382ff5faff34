"""``make fidelity``: run the missing parts, then write the figures and the tables."""

import argparse
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from lightning_steer.cli import CLI
from lightning_steer.report.files import write_json
from lightning_steer.statistics import estimate
from lightning_steer.studies.fidelity import (
    anisotropy,
    behaviours,
    declared,
    families,
    ground_truth,
    layers,
    planted,
    runs,
    same_choice,
    sweep,
    verdict,
    verdict_page,
)
from lightning_steer.studies.fidelity import document as drawn
from lightning_steer.studies.fidelity.planted import EFFECTS
from lightning_steer.studies.fidelity.settings import (
    ARMS,
    BEHAVIOURS,
    BIAS_TYPES,
    LAYER,
    NARROW,
    NARROW_SEEDS,
    QUICK,
    Arm,
    StudyScale,
)
from lightning_steer.studies.opening import open_once
from lightning_steer.studies.processes import side_by_side

Part = tuple[dict[str, Any], Callable[[], dict[str, Any]]]
FURTHER = ("layers-", "random-")
"""Beginnings of the names of parts that are made with ``--further`` alone."""


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the options of the study."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.fidelity", description=__doc__)
    add = parser.add_argument
    add("--base", type=Path, default=Path("checkpoints/pocket/base"), help="the base model")
    add("--tuned", type=Path, default=Path("checkpoints/pocket/tuned"), help="the model tuned with replay")
    add(
        "--narrow",
        type=Path,
        default=Path("checkpoints/pocket/narrow"),
        help="tuned on chats alone, -1 to -5 by seed of training; trained if missing",
    )
    add(
        "--planted", type=Path, default=Path("checkpoints/pocket/planted"), help="the positive control; made if missing"
    )
    add("--processes", type=int, default=torch.get_num_threads(), help="processes at work, one thread each")
    add("--out", type=Path, default=Path("logs/fidelity"), help="where numbers, reports and figures go")
    add("--quick", action="store_true", help="fewer strengths and layers, no narrow model, fewer methods' draws")
    add(
        "--further", action="store_true", help="also every layer's anisotropy, and random directions with a free choice"
    )
    add("--only", nargs="+", default=None, help="names of parts to run, as they stand in the progress bar")
    return parser.parse_args(argv)


def folders(options: argparse.Namespace) -> dict[str, Path]:
    """Return the folder of every model; raise FileNotFoundError if base or tuned is missing.

    The other models do not ship: :func:`train` makes them.
    """
    models: dict[str, Path] = {"base": options.base, "tuned": options.tuned}
    for name, folder in models.items():
        if not (folder / "model.safetensors").is_file():
            raise FileNotFoundError(f"no {name} model in {folder}: train it with `make pocket`, or name another folder")
    if not options.quick:
        root = Path("checkpoints").resolve()
        if root not in options.narrow.resolve().parent.parents:
            raise FileNotFoundError(f"no narrow model in {options.narrow}: it can be trained below {root} only")
        models |= {name: options.narrow.parent / name.replace("narrow", options.narrow.name) for name in NARROW}
        models |= {name: options.planted.with_name(name.replace("planted", options.planted.name)) for name in EFFECTS}
    return models


def train(options: argparse.Namespace, name: str) -> None:
    """Make a model that does not ship, unless it exists."""
    models = folders(options)
    if name in EFFECTS:
        planted.plant(models, "tuned", models[name], EFFECTS[name])
    elif not (models[name] / "model.safetensors").is_file():
        tune_narrowly(options.base, models[name], NARROW_SEEDS[NARROW.index(name)])


def tune_narrowly(base: Path, folder: Path, seed: int) -> None:
    """Run the command of ``configs/pocket_narrow.yaml``'s header for this base model, folder and draw of documents."""
    experiment = folder.resolve().parent.relative_to(Path("checkpoints").resolve())
    command = ["fit", "--config", "configs/pocket_narrow.yaml", "--model.init_args.llm", str(base)]
    CLI([*command, "--data.init_args.seed", str(seed), "--experiment", str(experiment), "--run", folder.name])


def digest(folder: Path) -> str:
    """Return a fingerprint of a model's weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


def parts(options: argparse.Namespace, models: dict[str, Path]) -> dict[str, Part]:
    """Return ``{name: (settings, function)}`` of all parts; runs read the sweeps, so they come after them."""
    scale = QUICK if options.quick else StudyScale()
    weights = {name: digest(path) for name, path in models.items()}
    arms = [arm for arm in ARMS if arm.model in models and arm.vector in models]
    if options.quick:
        arms = [arm for arm in arms if not arm.chat]
    draws = 4 if options.quick else scale.draws
    by_name: dict[str, Part] = {}

    def add(
        name: str, settings: dict[str, Any], used_models: Iterable[str], make: Callable[[], dict[str, Any]]
    ) -> None:
        all_settings = {
            **settings,
            "scale": scale._asdict(),
            "weights": {model: weights[model] for model in sorted(set(used_models))},
        }
        all_settings["statistics"] = estimate.VERSION
        by_name[name] = (json.loads(json.dumps(all_settings)), make)

    def judged(arm: Arm, kind: str, aim: str) -> dict[str, Any]:
        numbers = json.loads((options.out / "parts" / f"sweep-{arm.slug}-{kind}.json").read_text())
        return runs.report(arm, models, kind, aim, numbers, scale)

    for arm, kind in itertools.product(arms, BIAS_TYPES):
        name, arm_settings, used_models = f"{arm.slug}-{kind}", arm._asdict(), (arm.model, arm.vector)
        add(f"sweep-{name}", arm_settings, used_models, partial(sweep.run, arm, models, kind, scale))
        if not arm.chat:
            add(f"truth-{name}", arm_settings, used_models, partial(ground_truth.run, arm, models, kind, scale, LAYER))
        if arm.model == arm.vector and not arm.chat:
            make = partial(families.run, arm, models, kind, draws, LAYER)
            add(f"methods-{name}", {**arm_settings, "draws": draws}, used_models, make)
        for aim in sweep.AIMS:
            add(f"run-{name}-{aim}", arm_settings, used_models, partial(judged, arm, kind, aim))
    shown_models = {name: path for name, path in models.items() if name in ("base", "tuned", NARROW[0])}
    add("anisotropy", {}, shown_models, partial(anisotropy.run, shown_models, scale))
    every = range(5) if scale.layers is None else scale.layers
    for model in models if not options.quick else ():
        if model != "planted-2":
            declaration = {"declaration": declared.DECLARATION.digest()}
            add(f"verdict-{model}", declaration, {"base", model}, partial(verdict.run, models, model, every))
        if model in layers.MODELS:
            add(f"layers-{model}", {}, {"base", model}, partial(layers.run, models, model, every))
        if model in NARROW:
            add(f"random-{model}", {"seed": same_choice.SEED}, {model}, partial(same_choice.run, models, model, every))
    if "planted-2" in models:
        make = partial(verdict.control, models, "planted-2", every, declared.AGAIN_SEED)
        add("control-again", {"declaration": declared.AGAIN.digest()}, {"planted-2"}, make)
    for model, behaviour, chat in itertools.product(shown_models, BEHAVIOURS, (False, True)):
        if not chat or (model != "base" and not options.quick):
            name = f"behaviour-{model}-{behaviour}-{'chat' if chat else 'plain'}"
            make = partial(behaviours.run, models, model, behaviour, chat, scale, LAYER)
            add(name, {}, ("base", model), make)
    return by_name


def stored(options: argparse.Namespace, name: str, settings: dict[str, Any]) -> bool:
    """Return whether a part's file exists with these settings."""
    path = options.out / "parts" / f"{name}.json"
    return path.is_file() and json.loads(path.read_text()).get("settings") == settings


def measure(options: argparse.Namespace, name: str) -> None:
    """Write a part's file, unless it exists with these settings; raise ValueError if a model changed meanwhile."""
    models = folders(options)
    settings, make = parts(options, models)[name]
    path = options.out / "parts" / f"{name}.json"
    if not stored(options, name, settings):
        start = time.monotonic()
        result = make()
        for model, weights in settings["weights"].items():
            if digest(models[model]) != weights:
                raise ValueError(f"the {model} model was replaced meanwhile: run the study again")
        write_json(path, {"settings": settings, "seconds": time.monotonic() - start, **result})
    if name.startswith("run-"):
        written = json.loads(path.read_text())
        report = {key: value for key, value in written.items() if key not in ("settings", "seconds")}
        write_json(options.out / name.removeprefix("run-") / "report.json", report)


def main(argv: list[str] | None = None) -> int:
    """Train missing models, run missing parts, write the figures, print the page."""
    options, start = arguments(argv), time.monotonic()
    try:
        models = folders(options)
        derived = [name for name in models if name not in ("base", "tuned")]
        with side_by_side(options.processes) as run:
            if not all((models[name] / "model.safetensors").is_file() for name in derived):
                list(run(partial(train, options), derived))
            todo = parts(options, models)
            asked = [name for name in todo if options.further or not name.startswith(FURTHER)]
            names = asked if options.only is None else [name for name in todo if name in options.only]
            if options.only is not None and set(options.only) - todo.keys():
                unknown = sorted(set(options.only) - todo.keys())
                raise ValueError(f"no such parts: {unknown}; there are {', '.join(todo)}")
            log, openings = options.out / "opened.jsonl", []
            for declaration, prefix in ((declared.DECLARATION, "verdict-"), (declared.AGAIN, "control-again")):
                if any(name.startswith(prefix) for name in names):
                    openings = open_once(log, declaration, declaration.verdict_draws, sys.argv)
            with tqdm(total=len(names), desc="fidelity", unit="part") as bar:
                run_names = [name for name in names if name.startswith("run-")]  # they read the sweeps
                for part_names in ([name for name in names if name not in run_names], run_names):
                    for _ in run(partial(measure, options), part_names):
                        bar.update()
    except (FileNotFoundError, ValueError) as error:
        print(f"lightning_steer: {error}", file=sys.stderr)
        return 2
    if options.only is None:
        shown = [name for name in todo if name in names or stored(options, name, todo[name][0])]
        print(drawn.write(options.out, shown, lambda results: verdict_page.text(results, openings)))
    print(f"{time.monotonic() - start:.0f} s; figures and tables in {options.out}")
    return 0
