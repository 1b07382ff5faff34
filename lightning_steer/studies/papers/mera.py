"""MERA on six models, five tasks and both positions of reading, with the paper's baselines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lightning_steer.metrics.spi import estimates
from lightning_steer.report.tables import cell
from lightning_steer.studies.mera.settings import PAPER, PROMPT
from lightning_steer.studies.papers.paper import Paper, Planned, published
from lightning_steer.studies.papers.runner import BACKBONE, Runner, depth, short
from lightning_steer.studies.published.markdown import table as markdown

MODELS = tuple(
    name
    for base, tuned in (
        ("meta-llama/Llama-3.2-1B", "Instruct"),
        ("google/gemma-2-2b", "it"),
        ("Qwen/Qwen2.5-3B", "Instruct"),
    )
    for name in (base, f"{base}-{tuned}")
)
BASE, CONFIG, PROBE = "configs/steer_mera.yaml", "configs/papers/mera.yaml", "configs/probe.yaml"
CONFIGS = (BASE, CONFIG, "configs/methods/mera.yaml")
SOURCE = "--data.init_args.source"
GRID = sorted(PAPER, reverse=True)
POSITIONS = {"last": [], "exact": ["--data.init_args.answering={max_new_tokens: 20}"]}
"""The label is read right after the prompt, or where the first generated one begins."""


class Method(NamedTuple):
    """One of the paper's methods."""

    name: str
    config: str
    options: tuple[str, ...] = ()
    probes: bool = False
    """Whether it takes the penalty of the chosen probe."""


METHODS = (
    *(
        Method(f"contrastive, k {k}", "contrastive", (f"--model.init_args.method.init_args.k={k}",))
        for k in (50, 100, 200)
    ),
    Method("additive error probe", "probe_additive", (), True),
    Method("additive logistic", "logistic"),
    Method("MERA", "mera", (f"--model.init_args.strengths={GRID}",), True),
    Method("MERA, contrastive", "mera_contrastive", (f"--model.init_args.strengths={GRID}",), True),
    Method("MERA, logistic", "mera_logistic", (f"--model.init_args.strengths={GRID}",)),
)
PROMPTED = "prompt"
TASKS = {
    "sms_spam": ("SmsSpam", "", "file", "sms_spam/SMSSpamCollection"),
    "yes_no_question": ("FinanceTask", "task=yes_no_question", "file", "finance/yes_no_question.jsonl"),
    "sentiment_analysis": ("FinanceTask", "task=sentiment_analysis", "file", "finance/sentiment_analysis.jsonl"),
    "mmlu_high_school": ("MMLU", "level=high_school", "folder", "mmlu"),
    "mmlu_professional": ("MMLU", "level=professional", "folder", "mmlu"),
}
"""Of each task the class, its argument, and the argument and place of a local copy."""


def source_of(task: str, data: Path) -> list[str]:
    """Return the options that read a task, from its local copy if there is one, else from the hub."""
    name, argument, key, place = TASKS[task]
    options = [f"{SOURCE}={name}"] + ([f"{SOURCE}.init_args.{argument}"] if argument else [])
    return options + ([f"{SOURCE}.init_args.{key}={data / place}"] if (data / place).exists() else [])


def read_probe(module: Any) -> dict[str, Any]:
    """Return the block whose probe predicts best in the training rows, and its penalty."""
    scores = module.score.nan_to_num(-torch.inf)
    best = int(scores.argmax())
    return {
        "layer": best,
        "penalty": module.penalties[int(module.best[best])],
        "r2": float(module.score[best]),
    }


def read(module: Any) -> dict[str, Any]:
    """Return the figures, whether a strength was certified, and the unsteered answers."""
    metrics, columns = module.report["metrics"], module.tested.compute()
    names = ("spi", "accuracy", "accuracy_base", "balanced_accuracy_change", "mcc_change")
    base = {name: columns[f"baseline/{name}"][:, 0].tolist() for name in ("truth", "answer", "error", "labels")}
    return {
        **{name: metrics[name] for name in names},
        "certified": bool(module.choice[0] != module.maps[0].identity_strength),
        "strength": float(module.choice[0]),
        "base": base,
    }


def prompted(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an instruction before the prompt does, as if it were a method: two runs, the same rows."""
    was, now = ({name: torch.tensor(values) for name, values in record["base"].items()} for record in (before, after))
    columns = (was["truth"], was["answer"], now["answer"], was["error"], now["error"])
    figures = estimates(*columns, classes=int(was["labels"][0]))
    names = ("spi", "accuracy", "accuracy_base", "balanced_accuracy_change", "mcc_change")
    return {name: figures[name][0]._asdict() for name in names}


def run(models: Sequence[str], data: Path, runner: Runner) -> dict[str, dict[str, Any] | None]:
    """Run every model, task, position and method; ``runner.only`` names tasks and positions to keep."""
    results: dict[str, dict[str, Any] | None] = {}
    only = set(runner.only)
    for model in models:
        for task in [name for name in TASKS if not only & set(TASKS) or name in only]:
            for position in [name for name in POSITIONS if not only & set(POSITIONS) or name in only]:
                results |= _cell(model, task, position, data, runner)
    return results


def _cell(model: str, task: str, position: str, data: Path, runner: Runner) -> dict[str, dict[str, Any] | None]:
    place = f"{short(model)}/{task}/{position}"
    rows = [*source_of(task, data), *POSITIONS[position]]
    probe = runner.run(f"{place}/probe", (PROBE,), [*probed(model), *rows], read_probe, ("fit",), steers=False)
    if probe is None:
        return {}
    model_options = [f"{BACKBONE}.llm={model}", f"{BACKBONE}.layers={probe['layer']}"]
    cells = {}
    for method in METHODS:
        options = [*model_options, *rows, *method.options]
        if method.probes:
            options.append(f"--model.init_args.method.init_args.penalty={probe['penalty']}")
        configs = [BASE, CONFIG, f"configs/methods/{method.config}.yaml"]
        run = f"{place}/{method.name.replace(', ', '_').replace(' ', '_')}"
        cells[method.name] = runner.run(run, configs, options, read)
    first = next((result for result in cells.values() if result is not None), None)
    instructed = runner.run(
        f"{place}/{PROMPTED}",
        [BASE, CONFIG, "configs/methods/identity.yaml"],
        [*model_options, *rows, f"--data.init_args.before={PROMPT}"],
        read,
    )
    cells[PROMPTED] = None if first is None or instructed is None else prompted(first, instructed)
    return {f"{place}/{name}": result for name, result in cells.items()}


def probed(model: str) -> list[str]:
    """Return the options of a probe at every block, with no logistic one: a block is chosen by the error itself."""
    return [
        f"{BACKBONE}.llm={model}",
        f"{BACKBONE}.layers={list(range(depth(model)))}",
        f"{BACKBONE}.dtype=bfloat16",
        "--model.init_args.logistic_penalties=[]",
    ]


def plans(model: str, data: Path) -> list[Planned]:
    """Return the runs of every task and position; generated text is not counted."""
    middle = [f"{BACKBONE}.llm={model}", f"{BACKBONE}.layers={depth(model) // 2}"]
    return [
        planned
        for task in TASKS
        for rows in [source_of(task, data)]
        for planned in (
            (f"{task}: probe", len(POSITIONS), (PROBE,), [*probed(model), *rows]),
            (f"{task}: fit and test", len(POSITIONS) * (1 + len(METHODS)), CONFIGS, [*middle, *rows]),
        )
    ]


def table(results: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """Return the published ranges beside ours, then every cell."""
    stated = published("mera")
    done = {tuple(name.rsplit("/", 3)): result for name, result in results.items() if result is not None}
    ranges = []
    for task, ends in stated["spi"].items():
        mera = [r["spi"] for (_, t, _, method), r in done.items() if t == task and method == "MERA"]
        measured = [min(mera, key=_value), max(mera, key=_value)] if mera else None
        known = [f"{end:+.2f}" for end in ends] if ends else ["not known here"] * 2
        ranges.append(
            (task, known[0], cell(measured[0]) if measured else "", known[1], cell(measured[1]) if measured else "")
        )
    low, high = stated["contrastive"]
    alone = [r["spi"] for (*_, method), r in done.items() if method.startswith("contrastive")]
    measured = [min(alone, key=_value), max(alone, key=_value)] if alone else None
    lowest, highest = (cell(measured[0]), cell(measured[1])) if measured else ("", "")
    ranges.append(("all tasks, the contrastive baseline", f"{low:+.2f}", lowest, f"{high:+.2f}", highest))
    lines = [
        f"{stated['source']} SPI: the gain of accuracy as a share of what was missing, the loss as a share of "
        "what was there. Ours: SPI of what was certified at delta .01, 0 where nothing was, with 95 % intervals over "
        "held-out rows. Our lowest and highest are chosen among noisy values, so the lowest is too low and the highest "
        "too high.",
        "",
        *markdown(
            (
                "task (with MERA, unless a baseline is named)",
                *("theirs, lowest", "ours, lowest"),
                *("theirs, highest", "ours, highest"),
            ),
            ranges,
        ),
    ]
    columns = (
        "model",
        "task",
        "position",
        "method",
        "certified",
        "SPI",
        "accuracy before",
        "accuracy",
        "balanced accuracy's change",
    )
    rows = [
        (*key, "-" if "certified" not in r else "yes" if r["certified"] else "no",
         *(cell(r[name]) for name in ("spi", "accuracy_base", "accuracy", "balanced_accuracy_change")))
        for key, r in done.items()
    ]  # fmt: skip
    return [*lines, *markdown(columns, rows or [(short(model), *[""] * (len(columns) - 1)) for model in models])]


def _value(estimate: Mapping[str, Any]) -> float:
    return float(estimate["value"])


MERA = Paper(
    "mera",
    "Hedström et al., ICML 2025, arXiv 2510.13290: SPI of MERA and its baselines",
    MODELS,
    ((BASE,), ("configs/methods/mera.yaml",)),
    run,
    table,
    plans,
    hub_data=("ucirvine/sms_spam", "sujet-ai/Sujet-Finance-Instruct-177k", "cais/mmlu"),
    parts=(*TASKS, *POSITIONS),
)
