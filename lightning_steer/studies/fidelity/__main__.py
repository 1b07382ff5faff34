"""``make fidelity``: run what is not there yet, then draw the figures and the table."""

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

from tqdm.auto import tqdm

from lightning_steer.cli import CLI
from lightning_steer.report import fidelity as drawn
from lightning_steer.report.files import write_json
from lightning_steer.statistics import estimate
from lightning_steer.studies.fidelity import anisotropy, behaviours, families, runs, sweep, truth
from lightning_steer.studies.fidelity.settings import ARMS, BEHAVIOURS, BIAS_TYPES, LAYER, QUICK, Arm, Scale

Part = tuple[dict[str, Any], Callable[[], dict[str, Any]]]


def arguments(given: list[str] | None) -> argparse.Namespace:
    """The options of the study."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.fidelity", description=__doc__)
    add = parser.add_argument
    add("--base", type=Path, default=Path("checkpoints/pocket/base"), help="the base model")
    add("--tuned", type=Path, default=Path("checkpoints/pocket/tuned"), help="the model tuned with replay")
    add(
        "--narrow",
        type=Path,
        default=Path("checkpoints/pocket/narrow"),
        help="tuned on chats alone; trained if missing",
    )
    add("--out", type=Path, default=Path("logs/fidelity"), help="where numbers, reports and figures go")
    add("--quick", action="store_true", help="fewer strengths and layers, no narrow model, fewer methods' draws")
    add("--only", nargs="+", default=None, help="names of parts to run, as they stand in the progress bar")
    return parser.parse_args(given)


def folders(options: argparse.Namespace) -> dict[str, Path]:
    """The models; raises FileNotFoundError if base or tuned lacks, and trains the narrow one, which does not ship."""
    found = {"base": options.base, "tuned": options.tuned}
    for name, folder in found.items():
        if not (folder / "model.safetensors").is_file():
            raise FileNotFoundError(f"no {name} model in {folder}: train it with `make pocket`, or name another folder")
    if not options.quick:
        found["narrow"] = options.narrow
        if not (options.narrow / "model.safetensors").is_file():
            tune_narrowly(options.base, options.narrow)
    return found


def tune_narrowly(base: Path, folder: Path) -> None:
    """The command of ``configs/pocket_narrow.yaml``'s header, for this base model and folder."""
    root, experiment = Path("checkpoints").resolve(), folder.resolve().parent
    if root not in experiment.parents:
        raise FileNotFoundError(f"no narrow model in {folder}: it can be trained below {root} only")
    command = ["fit", "--config", "configs/pocket_narrow.yaml", "--model.init_args.llm", str(base)]
    CLI([*command, "--experiment", str(experiment.relative_to(root)), "--run", folder.name])


def digest(folder: Path) -> str:
    """Tells one model's weights from another's."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


def parts(options: argparse.Namespace, models: dict[str, Path]) -> dict[str, Part]:
    """``{name: (what it depends on, how it is made)}``; runs are judged by the sweeps, so they come after them."""
    scale = QUICK if options.quick else Scale()
    weights = {name: digest(path) for name, path in models.items()}
    arms = [arm for arm in ARMS if arm.model in models and arm.vector in models]
    if options.quick:
        arms = [arm for arm in arms if not arm.chat]
    draws = 4 if options.quick else scale.draws
    found: dict[str, Part] = {}

    def add(name: str, settings: dict[str, Any], used: Iterable[str], make: Callable[[], dict[str, Any]]) -> None:
        every = {**settings, "scale": scale._asdict(), "weights": {one: weights[one] for one in sorted(set(used))}}
        every["statistics"] = estimate.VERSION
        found[name] = (json.loads(json.dumps(every)), make)

    def judged(arm: Arm, kind: str, aim: str) -> dict[str, Any]:
        numbers = json.loads((options.out / "parts" / f"sweep-{arm.slug}-{kind}.json").read_text())
        return runs.report(arm, models, kind, aim, numbers, scale)

    for arm, kind in itertools.product(arms, BIAS_TYPES):
        name, what, used = f"{arm.slug}-{kind}", arm._asdict(), (arm.model, arm.vector)
        add(f"sweep-{name}", what, used, partial(sweep.run, arm, models, kind, scale))
        if not arm.chat:
            add(f"truth-{name}", what, used, partial(truth.run, arm, models, kind, scale, LAYER))
        if arm.model == arm.vector and not arm.chat:
            make = partial(families.run, arm, models, kind, draws, LAYER)
            add(f"methods-{name}", {**what, "draws": draws}, used, make)
        for aim in sweep.AIMS:
            add(f"run-{name}-{aim}", what, used, partial(judged, arm, kind, aim))
    add("anisotropy", {}, models, partial(anisotropy.run, models, scale))
    for model, behaviour, chat in itertools.product(models, BEHAVIOURS, (False, True)):
        if not chat or (model != "base" and not options.quick):
            name = f"behaviour-{model}-{behaviour}-{'chat' if chat else 'plain'}"
            make = partial(behaviours.run, models, model, behaviour, chat, scale, LAYER)
            add(name, {}, ("base", model), make)
    return found


def main(given: list[str] | None = None) -> int:
    """Run, draw, print."""
    options, start = arguments(given), time.monotonic()
    try:
        models = folders(options)
    except FileNotFoundError as error:
        print(f"lightning_steer: {error}", file=sys.stderr)
        return 2
    todo = parts(options, models)
    if options.only is not None and set(options.only) - todo.keys():
        unknown = sorted(set(options.only) - todo.keys())
        print(f"lightning_steer: no such parts: {unknown}; there are {', '.join(todo)}", file=sys.stderr)
        return 2
    seconds: dict[str, float] = {}
    bar = tqdm([name for name in todo if options.only is None or name in options.only], desc="fidelity")
    for name in bar:
        bar.set_postfix_str(name)
        settings, make = todo[name]
        path = options.out / "parts" / f"{name}.json"
        if not (path.is_file() and json.loads(path.read_text()).get("settings") == settings):
            began = time.monotonic()
            made = make()
            seconds[name] = time.monotonic() - began
            for model, weights in settings["weights"].items():
                if digest(models[model]) != weights:
                    print(
                        f"lightning_steer: the {model} model was replaced meanwhile: run the study again",
                        file=sys.stderr,
                    )
                    return 2
            write_json(path, {"settings": settings, "seconds": seconds[name], **made})
        if name.startswith("run-"):
            kept = json.loads(path.read_text())
            report = {key: value for key, value in kept.items() if key not in ("settings", "seconds")}
            write_json(options.out / name.removeprefix("run-") / "report.json", report)
    if options.only is None:
        print(drawn.write(options.out, list(todo)))
    print(f"{time.monotonic() - start:.0f} s; figures and tables in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
