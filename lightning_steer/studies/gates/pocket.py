"""Gates in the pocket model: a vector for one task or behaviour, prompts of all others to be left alone.

A behaviour's vector is the mean difference of its continuations; a task's, of the last prompt tokens of its first two
labels. The effect is the change of the margin between the two, in nats. What a gate keeps of it and what it spares the
others are ratios of sums over held-out prompts, with the vector's effect without a gate below the line.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_steer.data.pocket import behaviours, tasks
from lightning_steer.data.pocket.prompts import behaviour_items, task_prompts
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import GeneratedTokens, LastPromptToken
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import MeanDifference
from lightning_steer.records import Activations
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Share, Smooth
from lightning_steer.vectors import SteeringVector, of
from lightning_steer.workflows.gate import gate

LAYER, STRENGTH, ETA, DELTA = 2, 2.0, 0.05, 0.05
ROWS = 240
"""Prompts of each kind to gate with, half of them to calibrate; and as many held out."""
KEPT = Smooth(lambda weights, gated, free: (weights @ gated) / (weights @ free), 0, 1)
SPARED = Smooth(lambda weights, gated, free: 1 - (weights @ gated) / (weights @ free), 0, 1)


class GateGoal(NamedTuple):
    """Prompts with two continuations, the first one wanted."""

    name: str
    questions: list[MultipleChoice]
    group: list[int]
    """Topic or label of each prompt."""


class GateResult(NamedTuple):
    """What one gate does on held-out prompts."""

    goal: str
    seed: int
    effect: float
    """Mean change of the margin without a gate, in nats."""
    effect_kept: Estimate
    spared: Estimate
    power: Estimate
    wrong: Estimate
    guarantee: str


def goals(seed: int, n: int) -> list[GateGoal]:
    """Return n prompts of every behaviour and task, drawn anew for each seed."""
    made = []
    for name in behaviours.NAMES:
        items = behaviour_items(name, -(-n // 20), seed)
        order = np.random.default_rng([seed, 1]).permutation(len(items))[:n]
        drawn = [items[i] for i in order]
        questions = [MultipleChoice(item.prompt, (f" {item.positive}", f" {item.negative}")) for item in drawn]
        made.append(GateGoal(name, questions, [int(i) // -(-n // 20) for i in order]))
    for name in tasks.NAMES:
        prompts = task_prompts(name, n, seed)
        questions = [MultipleChoice(p.prompt, (f" {p.labels[0]}", f" {p.labels[1]}")) for p in prompts]
        made.append(GateGoal(name, questions, [p.label for p in prompts]))
    return made


def model(llm: str, read: Any) -> LLM:
    """Return the pocket model, read at these positions."""
    made = LLM(llm, LAYER, read_positions=read, normalize="none")
    made.load()
    return made


def fitted(llm: LLM, goal: GateGoal, behaviour: bool) -> SteeringVector:
    """Return the goal's vector."""
    reader = model(llm.llm, GeneratedTokens() if behaviour else LastPromptToken())
    if behaviour:
        texts = [MultipleChoice(q.prompt, (q.choices[i],)) for i in (0, 1) for q in goal.questions]
        error = torch.cat([torch.zeros(len(goal.questions)), torch.ones(len(goal.questions))])
    else:
        two = [i for i, label in enumerate(goal.group) if label < 2]
        texts = [MultipleChoice(goal.questions[i].prompt) for i in two]
        error = torch.tensor([float(goal.group[i]) for i in two])
    (site,) = llm.sites
    h = reader.activations(texts)[site]
    seen = Activations(h, error, torch.zeros(len(h), 1, dtype=torch.int64), False)
    return of(llm, {site: MeanDifference(h.shape[-1]).fit(seen)}, STRENGTH, task=goal.name)


def margins(llm: LLM, goal: GateGoal, vector: SteeringVector | None) -> np.ndarray:
    """Return ``[n]`` log-odds of the wanted continuation."""
    edits = {} if vector is None else _edits(llm, vector)
    scores = llm.scores(goal.questions, edits)[0].double()
    return (scores[:, 0] - scores[:, 1]).numpy()


def _edits(llm: LLM, vector: SteeringVector) -> dict[str, Any]:
    return {site: lambda h, m=method: m(h, STRENGTH) for site, method in zip(llm.sites, vector.maps, strict=True)}


def kl(llm: LLM, prompts: Sequence[str], vector: SteeringVector) -> np.ndarray:
    """Return ``[n]`` the mean next-token KL over each prompt's tokens."""
    drift: Tensor = llm.drift(prompts, _edits(llm, vector)).kl[0]
    return drift.nanmean(1).numpy()


def run(path: str, seed: int, rows: int = ROWS, names: Sequence[str] | None = None) -> Iterator[GateResult]:
    """Yield the result of every goal."""
    llm = model(path, LastPromptToken())
    drawn, held_out = (goals(2 * seed + part, rows) for part in (0, 1))
    for i, (goal, test) in enumerate(zip(drawn, held_out, strict=True)):
        if names is not None and goal.name not in names:
            continue
        vector = fitted(llm, goal, i < len(behaviours.NAMES))
        leave, others = (
            [q.prompt for j, g in enumerate(part) if j != i for q in g.questions] for part in (drawn, held_out)
        )
        random = np.random.default_rng([seed, i])  # mixed, as prompts of one kind are no sample of all
        leave, others = ([texts[k] for k in random.permutation(len(texts))[:rows]] for texts in (leave, others))
        gated = gate(llm, vector, [q.prompt for q in goal.questions], leave, ETA, DELTA)
        plain = margins(llm, test, None)
        free, with_gate = (margins(llm, test, v) - plain for v in (vector, gated))
        drift, spared = (kl(llm, others, v) for v in (vector, gated))
        yield GateResult(
            goal.name,
            seed,
            float(free.mean()),
            KEPT.estimate(with_gate, free, cluster=test.group if i < len(behaviours.NAMES) else None)[0],
            SPARED.estimate(spared, drift)[0],
            Share().estimate((with_gate != 0).astype(float))[0],
            Share().estimate((spared > 0).astype(float))[0],
            gated.maps[0].condition.gates[0].reason,  # type: ignore[union-attr,index]
        )
