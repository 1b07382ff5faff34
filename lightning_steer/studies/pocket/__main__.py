"""``make pocket``: train the two small language models that ship, measure them against the truth, write their cards."""

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lightning_steer.cli import CLI
from lightning_steer.data.pocket.behaviours import NAMES as BEHAVIOURS
from lightning_steer.data.pocket.stereotypes import TONES
from lightning_steer.data.pocket.tasks import NAMES as TASKS
from lightning_steer.report.files import write_text
from lightning_steer.studies.pocket import card, errors, goals, measures, steered
from lightning_steer.studies.pocket.reader import PocketReader

CONFIGS = {"base": "pocket", "tuned": "pocket_tuned"}
QUICK = ["--data.init_args.steps_per_epoch", "100"]
SHIPPED = 0
"""The seed of the models that ship, chosen before any was trained."""


def experiment(seed: int, quick: bool) -> str:
    """Return the folder of a seed's models below ``checkpoints/`` and ``logs/``."""
    if quick:
        return f"pocket_quick/{seed}"
    return "pocket" if seed == SHIPPED else f"pocket_seeds/{seed}"


def train(seed: int, quick: bool) -> None:
    """Run the commands of the configs' headers, with this seed for weights and documents."""
    for run, config in CONFIGS.items():
        folder = Path("checkpoints") / experiment(seed, quick)
        command = ["fit", "--config", f"configs/{config}.yaml", "--experiment", experiment(seed, quick)]
        command += ["--seed_everything", str(seed), "--data.init_args.seed", str(seed), *(QUICK if quick else [])]
        command += ["--model.init_args.llm", str(folder / "base")] if run == "tuned" else []
        start, cpu = time.monotonic(), time.process_time()
        fitted = CLI(command)
        cost = {
            "steps": fitted.trainer.global_step,
            "seconds": time.monotonic() - start,
            "core_seconds": time.process_time() - cpu,
            "threads": torch.get_num_threads(),
        }
        write_text(folder / run / "training.json", json.dumps(cost))
        for leftover in ("best.ckpt", "fit.yaml"):  # the weights are in model.safetensors, the settings in configs/
            (folder / run / leftover).unlink()


def measure(reader: PocketReader, tuned: bool, n: int) -> dict[str, measures.Figures]:
    """Measure one model in plain text; the tuned one in chat form too."""
    jobs: dict[str, Any] = {"loss": lambda: measures.loss(reader, 0.7 if tuned else 0.0, 2 * n)}
    for tone in TONES:
        jobs[f"P(word | target), {tone}"] = lambda tone=tone: measures.traits(reader, tone)
        jobs[f"StereoSet form, {tone}"] = lambda tone=tone: measures.stereoset(reader, tone)
    if tuned:
        jobs["P(word | target), chat"] = lambda: measures.traits(reader, as_chat=True)
        jobs["StereoSet form, chat"] = lambda: measures.stereoset(reader, as_chat=True)
    for name in TASKS:
        jobs[f"task {name}"] = lambda name=name: errors.task(reader, name, tuned, n)
    for name in BEHAVIOURS:
        jobs[f"behaviour {name}"] = lambda name=name: steered.behaviour(reader, name, tuned)
    for form in ("plain", "chat") if tuned else ("plain",):
        jobs[f"stereotype vector, {form}"] = lambda form=form: steered.stereotype_vector(reader, form == "chat")
    bar = tqdm(jobs.items(), desc=f"measuring {'tuned' if tuned else 'base'}", leave=False, file=sys.stdout)
    return {name: job() for name, job in bar}


def estimate(seed: int, quick: bool, n: int) -> None:
    """Measure both models of a seed and write the figures to ``evaluation.json`` beside the weights."""
    folder = Path("checkpoints") / experiment(seed, quick)
    readers = {run: PocketReader(folder / run) for run in CONFIGS}
    shapes = {form: steered.anisotropy(readers["base"], readers["tuned"], form == "chat") for form in ("plain", "chat")}
    for run, reader in readers.items():
        figures = measure(reader, run == "tuned", n)
        write_text(folder / run / "evaluation.json", card.as_json({seed: figures}, {seed: shapes}))


def describe(seeds: list[int], quick: bool) -> None:
    """Write the figures of all seeds, and the card, beside the first seed's models; print which goals are met."""
    folders = {seed: Path("checkpoints") / experiment(seed, quick) for seed in seeds}
    for run in CONFIGS:
        measured, shapes = dict[int, goals.Measured](), dict[int, goals.Shapes]()
        for seed, folder in folders.items():
            measured[seed], shapes[seed] = card.from_json((folder / run / "evaluation.json").read_text(), seed)
        folder = folders[seeds[0]] / run
        write_text(folder / "evaluation.json", card.as_json(measured, shapes))
        write_text(folder / "README.md", card.text(run, folder, seeds[0], measured, shapes))
        print(f"\n{goals.verdicts(run, seeds[0], measured, shapes)}\nModel and card: {folder}")


def main(argv: list[str] | None = None) -> int:
    """Train, measure, write ``README.md`` and ``evaluation.json`` beside the weights."""
    parser = argparse.ArgumentParser(prog="python -m lightning_steer.studies.pocket", description=__doc__)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds; 0 is the one that ships"
    )
    parser.add_argument("--prompts", type=int, default=2000, help="prompts per task in the evaluation")
    parser.add_argument("--measure-only", action="store_true", help="keep the models, measure them again")
    parser.add_argument("--card-only", action="store_true", help="keep the models and their figures, write the card")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that everything runs; ships nothing")
    options = parser.parse_args(argv)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for seed in options.seeds:
        if not (options.measure_only or options.card_only):
            print(f"== seed {seed}: training", flush=True)
            train(seed, options.quick)
        if not options.card_only:
            print(f"== seed {seed}: measuring", flush=True)
            estimate(seed, options.quick, 200 if options.quick else options.prompts)
    describe(options.seeds, options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
