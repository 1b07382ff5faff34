"""lm-evaluation-harness runs a model with and without steering: does `judge` read its logs as our report says?

The small model that ships is steered by a mean difference, fitted to pairs of the pocket language. The held-out pairs
become a task of lm-evaluation-harness with two choices, which its command runs unsteered and, with our exported vector,
at each strength (``--log_samples``). `judge` reads these logs. Printed is the greatest difference between its figures
and those of (a) the run's report, whose rows are the same pairs, and (b) `judge` on our own scores. Bound: 1e-6.

lm-evaluation-harness lives in the environment of ``vector_exports.py``.

    OMP_NUM_THREADS=1 python benchmarks/judged_logs.py      # two minutes, and two to install at first
"""

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import vector_exports

import lightning_steer as ls
from lightning_steer.data.behaviours.module import TEST, BehaviourDataModule, question
from lightning_steer.data.behaviours.sources import PairsFile
from lightning_steer.data.pocket import behaviours
from lightning_steer.lm.language_model import LLM
from lightning_steer.outcomes.records import Judgement

ROOT = Path(__file__).parents[1]
BASE = ROOT / "checkpoints/pocket/base"
PAIRS, STRENGTHS, BOUND = 400, (0.5, 1.0, 2.0), 1e-6
TASK = """\
task: pocket_pairs
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{[positive, negative]}}}}"
doc_to_target: 0
metric_list: [{{metric: acc}}]
"""


def write_pairs(path: Path) -> None:
    """Write pairs of which no two share a prompt or a continuation."""
    draw, behaviour = random.Random(0), behaviours.NAMES.index("truthful")
    topics = [(a, b) for a in behaviours.TOPICS[behaviour] for b in behaviours.TOPICS[behaviour] if a != b]
    prompts = [form.format(f"{a} and {b}") for form in behaviours.TEMPLATES for a, b in topics]
    poles, seen, lines = (behaviours.MATCHING[behaviour], behaviours.NON_MATCHING[behaviour]), set(), []
    for prompt in draw.sample(prompts, PAIRS):
        while True:
            # three deeds of five are of the pole, or more: the model is not always right
            sides = [draw.sample(range(5), draw.randint(3, 5)) for _ in poles]
            deeds = [[draw.choice(poles[own if i in kept else 1 - own][i].split()) for i in range(5)]
                     for own, kept in enumerate(sides)]  # fmt: skip
            texts = [f"{', '.join(words[:4])} and {words[4]}." for words in deeds]
            if not seen & set(texts) and texts[0] != texts[1]:
                break
        seen |= set(texts)
        lines.append({"prompt": prompt, "positive": texts[0], "negative": texts[1]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def our_run(folder: Path) -> dict[str, Any]:
    """Fit and test on the pairs, export the vector to ``v.pt``; return the report."""
    more = [
        "--config=configs/steer_behaviour.yaml",
        "--config=configs/methods/mean_difference.yaml",
        "--experiment=judged_logs",
        f"--model.init_args.backbone.init_args.llm={BASE}",
        "--model.init_args.backbone.init_args.normalize=none",
        f"--model.init_args.strengths={list(STRENGTHS)}",
        "--data.init_args.source=PairsFile",
        f"--data.init_args.source.init_args.path={folder / 'pairs.jsonl'}",
    ]
    command = [sys.executable, "-m", "lightning_steer"]
    (folder / "configs").symlink_to(ROOT / "configs")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    fitted = "checkpoints/judged_logs/mean_difference"
    for arguments in (["fit", *more], ["test", *more], ["export", fitted, "v.safetensors"], ["export", fitted, "v.pt"]):
        subprocess.run([*command, *arguments], cwd=folder, env=environment, check=True, capture_output=True)
    return json.loads((folder / "logs/judged_logs/mean_difference/report.json").read_text())


def harness_logs(python: Path, folder: Path, held_out: list[dict[str, str]]) -> list[str]:
    """Run lm-evaluation-harness without steering and at each strength; return its logs, as `judge` takes them."""
    (folder / "task").mkdir(exist_ok=True)
    (folder / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))
    (folder / "task/pocket_pairs.yaml").write_text(TASK.format(file=folder / "held_out.jsonl"))
    config = torch.load(folder / "v.pt", weights_only=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    runs = {}
    for strength in (0.0, *STRENGTHS):
        kind, options = "hf", f"pretrained={BASE},dtype=float32"
        if strength:
            steered = {name: {**part, "steering_coefficient": strength} for name, part in config.items()}
            torch.save(steered, folder / f"{strength:g}.pt")
            kind, options = "steered", f"{options},steer_path={folder / f'{strength:g}.pt'}"
        out = folder / f"run{strength:g}"
        command = [str(python), "-m", "lm_eval", "run", "--model", kind, "--model_args", options, "--device", "cpu"]
        command += ["--tasks", "pocket_pairs", "--include_path", str(folder / "task"), "--batch_size", "32"]
        command += ["--output_path", str(out), "--log_samples"]
        caches = {"HF_HOME": str(out / "cache")}  # runs at the same time share none
        with (folder / f"run{strength:g}.txt").open("w") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=environment | caches, stdout=log, stderr=subprocess.STDOUT
            )
        runs[out] = strength, process
    for _, process in runs.values():
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, process.args)
    return [f"{strength:g}={next(out.rglob('samples_*.jsonl'))}" for out, (strength, _) in runs.items()]


def our_scores(folder: Path, data: BehaviourDataModule) -> Path:
    """Write our own scores of the held-out pairs as a table of outcomes."""
    llm, exported = LLM(str(BASE), 2), torch.load(folder / "v.pt", weights_only=True)
    llm.load()
    [site], [part] = llm.sites, exported.values()
    questions = [question(example) for example in data.parts[TEST]]
    with (folder / "ours.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item", "setting", "measure", "value"])
        for strength in (0.0, *STRENGTHS):
            added = strength * part["steering_vector"]
            [scores] = llm.scores(questions, {site: lambda h, added=added: h + added})
            rows = (scores[:, 0] > scores[:, 1]).tolist()
            writer.writerows((i, f"{strength:g}", "pocket_pairs_acc", right) for i, right in enumerate(rows))
    return folder / "ours.csv"


def figures(judgement: Judgement) -> dict[str, tuple[float, ...]]:
    """Return all that is said of each setting: value, change, their intervals, and how many items rose and fell."""
    [measure] = judgement.measures
    return {
        setting.setting: (*setting.value[:3], *setting.change[:3], setting.rose, setting.fell, measure.n)
        for setting in measure.settings
    }


def main() -> int:
    """Run, judge, compare."""
    try:
        python = vector_exports.environment()
    except subprocess.CalledProcessError:
        print("judged_logs: lm-evaluation-harness cannot be installed here; nothing was compared")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder / "pairs.jsonl")
        report = our_run(folder)
        data = BehaviourDataModule(PairsFile(str(folder / "pairs.jsonl")))
        data.setup()
        held_out = [
            {"prompt": pair.prompt, "positive": pair.positive, "negative": pair.negative} for pair in data.parts[TEST]
        ]
        by_logs = ls.judge(harness_logs(python, folder, held_out))
        by_scores = ls.judge(our_scores(folder, data))
    curve = report["curves"]["strength"]
    plain = report["baselines"]["baseline"]["intended_preferred"]
    ours = {"0": plain["value"]} | {
        f"{x:g}": value for x, value in zip(curve["x"], curve["intended_preferred"]["value"], strict=True)
    }
    logs, scores = figures(by_logs), figures(by_scores)
    from_report = max(abs(logs[key][0] - ours[key]) for key in logs)
    from_scores = max(abs(a - b) for key in logs for a, b in zip(logs[key], scores[key], strict=True))
    shares = ", ".join(f"{value[0]:.3f} at {key}" for key, value in logs.items())
    holds = True
    for what, difference in (("the shares of our report", from_report), ("judge on our own scores", from_scores)):
        told = (
            f"greatest difference between judge on logs of lm-evaluation-harness 0.4.13 and {what}, {plain['n']} "
            f"held-out pairs; the positive is preferred in {shares}"
        )
        line = {"ratio": difference, "low": difference, "high": difference, "n": 1, "holds": difference <= BOUND}
        print(json.dumps({"benchmark": "judged logs", **line, "bound": f"<= {BOUND:g}", "told": told}))
        holds &= difference <= BOUND
    return 0 if holds and plain["n"] == by_logs.measures[0].n else 1


if __name__ == "__main__":
    sys.exit(main())
