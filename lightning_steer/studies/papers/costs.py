"""What an experiment costs, from its configurations and data alone: operations and memory of every kind of run."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from lightning_steer.lm import loading
from lightning_steer.plan import experiment, planning
from lightning_steer.plan.blank import Blank, located
from lightning_steer.plan.rows import Counter, tokenizer_of
from lightning_steer.plan.table import operations
from lightning_steer.studies.papers.paper import Paper
from lightning_steer.studies.published.markdown import table as markdown

COLUMNS = ("model", "run", "runs", "tokens per run", "operations per run", "of all runs", "memory in bfloat16")


class ExperimentCost(NamedTuple):
    """The cost of all runs of one kind."""

    model: str
    what: str
    times: float
    """How many runs."""
    tokens: float
    """Of one run, through the whole network."""
    flops: float
    """Of one run."""
    memory: float
    """The most at once, in bytes."""
    exact: bool
    """Whether a tokenizer counted; else a token is taken for four bytes of text."""


def costs(paper: Paper, models: Sequence[str], data: Path) -> list[ExperimentCost]:
    """Return the costs of an experiment; raises ValueError or OSError if a model's configuration or data lack."""
    costs = []
    for model in dict.fromkeys(models):
        folder = located(model)
        config = loading.configuration(str(folder))
        blank = Blank(config, torch.bfloat16, model)
        tokenizer = tokenizer_of(folder)
        for what, times, configs, options in paper.plans(model, data):
            planned = experiment.read(configs, options)
            work = experiment.work(planned, Counter(planned.llm, tokenizer), blank.decoder.depth)
            plan = planning.plan(blank, work.needs(planned.llm.tokens_per_batch))
            tokens = sum(phase.tokens(blank.decoder.depth) for phase in work.phases)
            flops = sum(phase.flops(blank.decoder.depth, plan.block, plan.score) for phase in work.phases)
            costs.append(ExperimentCost(model, what, times, tokens, flops, plan.memory.peak, tokenizer is not None))
    return costs


def lines(costs: Sequence[ExperimentCost]) -> list[str]:
    """Return a table of the costs."""
    rows = [
        (
            cost.model,
            cost.what,
            f"{cost.times:,.0f}",
            f"{'' if cost.exact else '~'}{cost.tokens:,.0f}",
            operations(cost.flops),
            operations(cost.times * cost.flops),
            planning.size(cost.memory),
        )
        for cost in costs
    ]
    total = operations(sum(cost.times * cost.flops for cost in costs))
    speed = "`python -m lightning_steer plan --calibrate --device cuda` measures your device's speed."
    return [*markdown(COLUMNS, rows), f"In all {total}. {speed}"]
