"""Train the narrow pocket model with and without a vector, judge side effect and lesson, print the page's tables."""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from lightning_steer.cache.files import digest
from lightning_steer.cli import CLI
from lightning_steer.data.pair_module import SELECT, TEST
from lightning_steer.methods import MeanDifference, RandomDirection
from lightning_steer.report.files import write_json, write_text
from lightning_steer.statistics.intervals import mean_over_units
from lightning_steer.studies.declaration import declared_text, verdict_text
from lightning_steer.studies.opening import open_once
from lightning_steer.studies.preventive import declared, measures
from lightning_steer.studies.preventive.declared import CHOICE_SEED, SEEDS
from lightning_steer.studies.processes import side_by_side
from lightning_steer.vectors import load

BASE, OUT = Path("checkpoints/pocket/base"), Path("logs/preventive")
STRENGTHS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
ROWS = {
    "base": "base model, not trained",
    "none": "trained, no vector",
    "preventive": "vector in training",
    "half": "vector in training, half the strength",
    "opposite": "opposite sign in training",
    "random": "random direction in training",
    "afterwards": "no vector in training, subtracted afterwards",
    "kept on": "vector in training, and kept on",
}

PREVENTING = ("preventive", "half", "afterwards")


def vector_path(arm: str, seed: int) -> Path:
    """Return the file of the vector that an arm trains with; every training has a random direction of its own."""
    return OUT / (f"random-{seed}.safetensors" if arm == "random" else "vector.safetensors")


def folder_of(arm: str, strength: float, seed: int) -> Path:
    """Return the folder of a trained model; :func:`train` reads its name."""
    return Path("checkpoints/preventive", f"{arm}-{0 if arm == 'none' else strength:g}-{seed}")


def train(name: str) -> None:
    """Train the model of a folder's name as ``configs/pocket_narrow.yaml`` does, unless it is there."""
    arm, strength, seed = name.split("-")
    folder = folder_of(arm, float(strength), int(seed))
    if (folder / "model.safetensors").is_file():
        return
    command = ["fit", "--config", "configs/pocket_narrow.yaml", "--model.init_args.llm", str(BASE)]
    command += ["--data.init_args.seed", seed, "--experiment", folder.parent.name, "--run", folder.name]
    if arm != "none":
        signed = -float(strength) if arm == "opposite" else float(strength)
        settings = {"vector": str(vector_path(arm, int(seed))), "strength": signed}
        callback = {"class_path": "lightning_steer.vectors.preventive.PreventiveSteering", "init_args": settings}
        command += [f"--trainer.callbacks={json.dumps([callback])}"]
    CLI(command)


def measure(folder: Path, part: int, strength: float = 0.0) -> dict[str, float]:
    """Return a model's figures, measured once; steered with the vector at a strength that is not 0."""
    vector = vector_path("preventive", 0)
    settings = {"weights": digest(folder / "model.safetensors"), "vector": digest(vector) if strength else None}
    path = OUT / "parts" / f"{folder.name}-{part}-{strength:g}.json"
    stored = json.loads(path.read_text()) if path.is_file() else {}
    if stored.get("settings") != settings:
        figures = measures.measured(folder, part, load(vector) if strength else None, strength, part == TEST)
        stored = {"settings": settings, "figures": figures}
        write_json(path, stored)
    return stored["figures"]


def chosen(folder: Path, figure: str, sign: int) -> tuple[float, str]:
    """Return the strength with the smallest size of a figure on selecting terms, and a line about all of them."""
    sizes = {strength: measure(folder, SELECT, sign * strength)[figure] for strength in STRENGTHS}
    best = min(sizes, key=lambda strength: abs(sizes[strength]))
    return best, f"{best:g} ({', '.join(f'{strength:g}: {value:.2f}' for strength, value in sizes.items())})"


def places(strength: float, afterwards: float, row: str) -> list[tuple[Path, float]]:
    """Return a row's model and the strength that it is steered with while it is judged, for every training seed."""
    derived = {"afterwards": ("none", -afterwards), "kept on": ("preventive", strength), "half": ("preventive", 0.0)}
    arm, steered = derived.get(row, (row, 0.0))
    trained = strength / 2 if row == "half" else strength
    return [(BASE if row == "base" else folder_of(arm, trained, seed), steered) for seed in SEEDS]


def judge(strength: float, afterwards: float, row: str) -> None:
    """Measure the models of a row."""
    for folder, steered in places(strength, afterwards, row):
        measure(folder, TEST, steered)


def table(figures: dict[str, dict[int, dict[str, float]]]) -> str:
    """Return the table of all arms: means over trainings, with their ranges."""
    names = measures.FIGURES
    lines = [f"| log-odds and nats | {' | '.join(names.values())} |", f"|{'---|' * (1 + len(names))}"]
    for row, by_seed in figures.items():
        cells = (mean_over_units([of_seed[name] for of_seed in by_seed.values()]) for name in names)
        lines.append(f"| {ROWS[row]} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def price(figures: dict[str, dict[int, dict[str, float]]]) -> str:
    """Return what each way of preventing costs: the lesson's change over the leak's, against plain training."""

    def change(row: str, name: str) -> float:
        return sum(figures[row][seed][name] - figures["none"][seed][name] for seed in SEEDS)

    costs = (f"{ROWS[row]}: {change(row, 'lesson') / change(row, 'leak'):.2f}" for row in PREVENTING)
    return f"Change of the lesson over that of the leak, both means over trainings: {'; '.join(costs)}."


def main(argv: list[str] | None = None) -> int:
    """Run what is missing; print the tables, and write them to ``logs/preventive/preventive.md``."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.preventive", description=__doc__)
    parser.add_argument("--processes", type=int, default=2, help="processes at work, one thread each")
    options = parser.parse_args(argv)
    OUT.mkdir(parents=True, exist_ok=True)
    measures.fitted(BASE, MeanDifference(96)).save(vector_path("preventive", 0))
    for seed in SEEDS:
        measures.fitted(BASE, RandomDirection(96, seed)).save(vector_path("random", seed))
    strength, tried = chosen(BASE, "lesson", 1)
    untouched = folder_of("none", 0, CHOICE_SEED)
    arms = [(arm, strength) for arm in ("none", "preventive", "random", "opposite")] + [("preventive", strength / 2)]
    folders = [untouched, *(folder_of(*arm, seed) for seed in SEEDS for arm in arms)]
    with side_by_side(options.processes) as run:
        list(run(train, [folder.name for folder in folders]))
        afterwards, tried_afterwards = chosen(untouched, "leak", -1)
        openings = open_once(OUT / "opened.jsonl", declared.DECLARATION, declared.DECLARATION.verdict_draws, sys.argv)
        list(run(partial(judge, strength, afterwards), list(ROWS)))
    figures = {
        row: {
            seed: measure(folder, TEST, steered)
            for seed, (folder, steered) in zip(SEEDS, places(strength, afterwards, row), strict=True)
        }
        for row in ROWS
    }
    results = declared.results(figures)
    known = measures.terms(TEST)
    true = {"plain text": measures.true_odds(known, False), "chats": measures.true_odds(known, True)}
    lines = [
        f"Strength in training: {tried}. Afterwards: {tried_afterwards}.",
        f"True log-odds: {', '.join(f'{value:.2f} in {name}' for name, value in true.items())}; "
        f"{len(known)} target terms, {len(SEEDS)} trainings.",
        table(figures),
        price(figures),
        *(verdict_text(question, results[question.name]) for question in declared.DECLARATION.questions),
        declared_text(declared.DECLARATION),
        *(
            f"Opened {entry['opened']} under declaration {entry['declaration']}: {entry['draws']}."
            for entry in openings
        ),
    ]
    text = "\n\n".join(lines)
    write_text(OUT / "preventive.md", text + "\n")
    print(text)
    return 0
