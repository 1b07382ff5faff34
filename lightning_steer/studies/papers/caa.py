"""CAA's seven behaviours on Llama-2-7b-chat: P(matching answer) by multiplier, and its slope."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_steer.metrics.columns import as_clusters, as_numbers
from lightning_steer.report.tables import cell
from lightning_steer.statistics.kinds import Mean
from lightning_steer.studies.papers.paper import Clone, Paper, Planned, published
from lightning_steer.studies.papers.runner import BACKBONE, Runner
from lightning_steer.studies.published.caa import BEHAVIOURS, MULTIPLIERS
from lightning_steer.studies.published.markdown import table as markdown

MODEL = "meta-llama/Llama-2-7b-chat-hf"
BASE, METHOD = "configs/steer_behaviour.yaml", "configs/methods/mean_difference.yaml"
CONFIGS = (BASE, "configs/papers/caa.yaml", METHOD)
TRAIN, TEST = "datasets/generate/{}/generate_dataset.json", "datasets/test/{}/test_dataset_ab.json"
DATA = Clone("nrimsky/CAA", "CAA", tuple(file.format(name) for name in BEHAVIOURS for file in (TRAIN, TEST)))
COLUMNS = (
    "behaviour",
    "theirs, at -1",
    "ours, at -1",
    "theirs, at 1",
    "ours, at 1",
    "theirs, slope",
    "ours, slope",
    "n",
)


def read(module: Any) -> dict[str, Any]:
    """Return the mean probability of the matching answer at every multiplier, and its slope, with intervals."""
    columns = module.tested.compute()
    steered = dict(zip(module.strengths, columns["strength/margin"].unbind(1), strict=True))
    margins = torch.stack([steered.get(m, columns["baseline/margin"][:, 0]) for m in MULTIPLIERS], 1)
    p = as_numbers(margins.sigmoid())
    centred = np.array(MULTIPLIERS) - np.mean(MULTIPLIERS)
    weight = centred / np.square(centred).sum()  # the slope is linear in the rows, so it is a mean of theirs
    reach = float(weight[weight > 0].sum())
    clusters = as_clusters(columns["cluster"].reshape(-1))
    means = Mean(0, 1).estimate(p, clusters)
    return {
        "means": {f"{m:g}": estimate._asdict() for m, estimate in zip(MULTIPLIERS, means, strict=True)},
        "slope": Mean(-reach, reach).estimate(p @ weight, clusters)[0]._asdict(),
    }


def options(model: str, data: Path, behaviour: str) -> list[str]:
    """Return the options of a run."""
    arguments = [f"{BACKBONE}.llm={model}"]
    for part, file in (("source", TRAIN), ("test", TEST)):
        arguments.append(f"--data.init_args.{part}.init_args.path={data / DATA.folder / file.format(behaviour)}")
        arguments.append(f"--data.init_args.{part}.init_args.behaviour={behaviour}")
    return arguments


def run(models: Sequence[str], data: Path, runner: Runner) -> dict[str, dict[str, Any] | None]:
    """Run every behaviour on the first model."""
    names = runner.only or BEHAVIOURS
    return {name: runner.run(name, CONFIGS, options(models[0], data, name), read) for name in names}


def plans(model: str, data: Path) -> list[Planned]:
    """Return the runs of all behaviours, counted with the rows of sycophancy."""
    return [("fit and test, as of sycophancy", len(BEHAVIOURS), CONFIGS, options(model, data, "sycophancy"))]


def table(results: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """Return the published slopes and ends beside ours."""
    rows = []
    for behaviour, stated in published("caa")["behaviours"].items():
        result = results.get(behaviour)
        measured = ["", "", "", ""]
        if result is not None:
            low, high = result["means"]["-1"], result["means"]["1"]
            measured = [cell(low), cell(high), cell(result["slope"]), str(low["n"])]
        values = [f"{stated[key]:.3f}" for key in ("lowest", "highest")] + [f"{stated['slope']:+.3f}"]
        rows.append((behaviour, values[0], measured[0], values[1], measured[1], values[2], measured[2], measured[3]))
    return [
        f"{published('caa')['source']} Cells: P(matching answer), mean over questions. Slope: its "
        "least-squares change per unit of the multiplier. Ours with 95 % intervals over questions.",
        "",
        *markdown(COLUMNS, rows),
    ]


CAA = Paper(
    "caa",
    "Rimsky et al. 2024, arXiv 2312.06681: P(matching answer) of seven behaviours, block 13, multipliers -1 to 1",
    (MODEL,),
    ((BASE,), (METHOD,)),
    run,
    table,
    plans,
    (DATA,),
    parts=BEHAVIOURS,
)
