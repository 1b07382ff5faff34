"""Likelihood evaluation on Llama-2-7b-chat: steered by CAA's vectors, and a fine-tuned model as if it were a method."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.metrics.behaviour_effect import behaviour_estimates, behaviour_rows
from lightning_steer.metrics.likelihood import promotion_table
from lightning_steer.report.tables import cell
from lightning_steer.studies.papers.caa import BASE, METHOD, TRAIN
from lightning_steer.studies.papers.paper import Clone, Paper, Planned, published
from lightning_steer.studies.papers.runner import BACKBONE, Runner, short
from lightning_steer.studies.published.markdown import table as markdown

MODEL, PLAIN = "meta-llama/Llama-2-7b-chat-hf", "meta-llama/Llama-2-7b-hf"
IDENTITY = "configs/methods/identity.yaml"
CONFIGS = (BASE, "configs/papers/likelihood.yaml", METHOD)
PLAIN_CONFIGS = (BASE, "configs/papers/likelihood_tuned.yaml", IDENTITY)
OPEN = "results/generated_data/{}.json"
RELEASED = {"myopia": "myopic-reward", "corrigible": "corrigible-neutral-HHH", "hallucination": "hallucination"}
"""Released files, in all of which the first half does not show the behaviour of that name, and CAA's behaviours."""
OPEN_PAIRS = Clone("Itam67/steer_wrk", "steer_wrk", tuple(OPEN.format(name) for name in RELEASED))
CAA_PAIRS = Clone("nrimsky/CAA", "CAA", tuple(TRAIN.format(name) for name in RELEASED.values()))
QUARTERS = ("25 %", "50 %", "75 %", "100 %")
COLUMNS = ("case", "cells", *QUARTERS, "change of the margin", "of positives", "of negatives", "n")
CHANGES = ("margin_change", "positive_change", "negative_change")


def compared(control: Tensor, steered: Tensor, cluster: Tensor) -> dict[str, Any]:
    """Return the paper's cells, and the changes with intervals, of log-likelihoods ``[n, 2]``."""
    rows = {name: column.T for name, column in behaviour_rows(control, steered[None]).items()}
    estimates = behaviour_estimates(rows, cluster)
    cells = promotion_table(control, steered).tolist() if len(control) >= len(QUARTERS) else []
    return {"cells": cells, **{name: estimates[name][0]._asdict() for name in CHANGES}}


def halves(columns: Mapping[str, Tensor], group: str) -> Tensor:
    """Return log-likelihoods ``[n, copies, 2]`` of the positive and the negative continuations."""
    return torch.stack([columns[f"{group}/positive"], columns[f"{group}/negative"]], -1).cpu().double()


def read_steered(module: Any) -> dict[str, Any]:
    """Return the comparison at every coefficient."""
    columns = module.tested.compute()
    control, steered = halves(columns, "baseline")[:, 0], halves(columns, "strength")
    cluster = columns["cluster"].reshape(-1).cpu()
    return {f"{s:g}": compared(control, steered[:, i], cluster) for i, s in enumerate(module.strengths)}


def read_plain(module: Any) -> dict[str, Any]:
    """Return the log-likelihoods of every pair in an unsteered model."""
    columns = module.tested.compute()
    return {"ll": halves(columns, "baseline")[:, 0].tolist(), "cluster": columns["cluster"].reshape(-1).tolist()}


def vector_options(model: str, data: Path, behaviour: str) -> list[str]:
    """Return the options that fit CAA's vector of a behaviour and test it with the released pairs."""
    source, test = "--data.init_args.source.init_args", "--data.init_args.test.init_args"
    return [
        f"{BACKBONE}.llm={model}",
        f"{source}.path={data / CAA_PAIRS.folder / TRAIN.format(RELEASED[behaviour])}",
        f"{source}.behaviour={behaviour}",
        f"{test}.path={data / OPEN_PAIRS.folder / OPEN.format(behaviour)}",
        f"{test}.behaviour={behaviour}",
    ]


def run(models: Sequence[str], data: Path, runner: Runner) -> dict[str, dict[str, Any] | None]:
    """Run every behaviour on the first model."""
    names = runner.only or RELEASED
    return {name: runner.run(name, CONFIGS, vector_options(models[0], data, name), read_steered) for name in names}


def plans(model: str, data: Path) -> list[Planned]:
    """Return the run of every behaviour."""
    return [(f"{name}: fit and test", 1, CONFIGS, vector_options(model, data, name)) for name in RELEASED]


def plain_options(model: str, data: Path) -> list[str]:
    """Return the options that score the released pairs of truthfulness in an unsteered model."""
    files = (("source", "myopia"), ("test", "hallucination"))
    folder = data / OPEN_PAIRS.folder
    return [
        f"{BACKBONE}.llm={model}",
        *(f"--data.init_args.{part}.init_args.path={folder / OPEN.format(name)}" for part, name in files),
    ]


def plans_tuned(model: str, data: Path) -> list[Planned]:
    """Return the run of one model."""
    return [("fit and test, nothing steered", 1, PLAIN_CONFIGS, plain_options(model, data))]


def run_tuned(models: Sequence[str], data: Path, runner: Runner) -> dict[str, dict[str, Any] | None]:
    """Compare the second model with the first, row by row."""
    if len(models) != 2:
        raise UserError(
            f"likelihood_tuned compares two models, the base and the tuned one: give two, not {len(models)}"
        )
    before, after = (runner.run(short(m), PLAIN_CONFIGS, plain_options(m, data), read_plain) for m in models)
    if before is None or after is None:
        return {}
    control, tuned = (torch.tensor(scores["ll"], dtype=torch.float64) for scores in (before, after))
    return {f"{short(models[1])} for {short(models[0])}": compared(control, tuned, torch.tensor(before["cluster"]))}


def _rows(case: str, result: Mapping[str, Any]) -> list[tuple[object, ...]]:
    sides = zip(*result["cells"], strict=True) if result["cells"] else ([None] * 4, [None] * 4)
    promoted, suppressed = ([("-" if value is None else f"{value:.4f}") for value in side] for side in sides)
    changes = [cell(result[name]) for name in CHANGES]
    n = result["margin_change"]["n"]
    return [(case, "promotion", *promoted, *changes, n), (case, "suppression", *suppressed, "", "", "", "")]


def _theirs(name: str) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for case, sides in published(name)["cells"].items():
        for side, values in sides.items():
            numbers = ["not known here" if value is None else f"{value:.4f}" for value in values]
            rows.append((f"theirs: {case}", side, *numbers, "", "", "", ""))
    return rows


def table(results: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """Return the published cells, then ours at every coefficient."""
    rows = _theirs("likelihood")
    for name in RELEASED:
        result = results.get(name)
        if result is None:
            rows += [(f"ours: {name}", side, *[""] * (len(COLUMNS) - 2)) for side in ("promotion", "suppression")]
            continue
        rows += [row for s, record in result.items() for row in _rows(f"ours: {name}, coefficient {s}", record)]
    return _text("likelihood", rows)


def table_tuned(results: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """Return the published cells, then ours."""
    rows = _theirs("likelihood_tuned")
    for name, result in results.items():
        rows += _rows(f"ours: {name}", result)
    if not results:
        name = f"ours: {short(models[-1])} for {short(models[0])}"
        rows += [(name, side, *[""] * (len(COLUMNS) - 2)) for side in ("promotion", "suppression")]
    return _text("likelihood_tuned", rows)


def _text(name: str, rows: Sequence[tuple[object, ...]]) -> list[str]:
    return [
        f"{published(name)['source']} Columns 25 % to 100 %: the change of log-likelihood by the paper's normaliser, "
        "mean over this share of the prompts: promotion of the positives that were least likely unsteered, suppression "
        "of the negatives that were likeliest. They have no interval, since none is known to hold. The other changes "
        "are in nats per token, with 95 % intervals over prompts.",
        "",
        *markdown(COLUMNS, rows),
    ]


LIKELIHOOD = Paper(
    "likelihood",
    "Pres et al. 2024, arXiv 2410.17245: its table, with vectors made of CAA's pairs",
    (MODEL,),
    ((BASE,), (METHOD,)),
    run,
    table,
    plans,
    (OPEN_PAIRS, CAA_PAIRS),
    parts=tuple(RELEASED),
)
TUNED = Paper(
    "likelihood_tuned",
    "Pres et al. 2024, arXiv 2410.17245: its row of a fine-tuned model",
    (PLAIN, MODEL),
    ((BASE,), (IDENTITY,)),
    run_tuned,
    table_tuned,
    plans_tuned,
    (OPEN_PAIRS,),
)
