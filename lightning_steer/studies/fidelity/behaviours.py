"""Likelihood evaluation of the pocket behaviours: vectors in each model, and fine-tuning treated as a method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.data.behaviours.module import FIT, TEST, BehaviourDataModule, PocketBehaviour, question
from lightning_steer.data.pair_batches import PairBatches
from lightning_steer.metrics.behaviour_effect import (
    BehaviourEffect,
    behaviour_estimates,
    behaviour_rows,
    table_estimates,
)
from lightning_steer.metrics.drift import kl_mean
from lightning_steer.metrics.likelihood import sorted_curves
from lightning_steer.studies.fidelity.settings import StudyScale
from lightning_steer.studies.fidelity.subject import (
    added,
    directions,
    language_model,
    pair_activations,
    reference_texts,
)
from lightning_steer.studies.fidelity.sweep import drift_of, plain, with_unsteered

SHOWN = 1.0
"""Strength of the paper's figure and table."""
UNSTEERED = {**BehaviourEffect.by_definition, "auc_change": 0.0, "cohens_d_change": 0.0}
"""Changes at strength 0, known by definition."""
OF_DRAWS = ("margin", "preference", "margin_change", "positive_change", "negative_change")


def part(data: BehaviourDataModule, number: int) -> PairBatches:
    """Return the questions of one part; fitting moves away from the negative continuations."""
    questions = [question(example) for example in data.parts[number]]
    cluster = data.clusters[number]
    return PairBatches(questions, data.negative, data.positive, cluster, len(questions))


def figure(control: Tensor, steered: Tensor) -> dict[str, Any]:
    """Return the paper's figure as plain numbers."""
    curves = sorted_curves(control, steered)
    return {
        "control": curves.control.tolist(),
        "steered": curves.steered.tolist(),
        "bands": [curves.negative_band, curves.positive_band],
    }


def by_chance_figure(control: Tensor, drawn: Tensor) -> list[list[float]]:
    """Return the smallest and the largest value of random directions ``[R, n, 2]`` at each place of the figure."""
    curves = torch.stack([sorted_curves(control, steered).steered for steered in drawn])
    return [curves.amin(0).tolist(), curves.amax(0).tolist()]


def compared(control: Tensor, steered: Tensor, topic: Tensor) -> dict[str, Any]:
    """Compare one candidate with the control, ``[n, 2]`` each: estimates, table, figure."""
    rows = {name: column.T for name, column in behaviour_rows(control, steered[None]).items()}
    quarters = table_estimates(control, steered, topic)
    return {
        "estimates": {name: plain(e)[0] for name, e in behaviour_estimates(rows, topic).items()},
        "table": [plain(quarter) for quarter in quarters],
        "figure": figure(control, steered),
    }


@torch.no_grad()
def run(
    models: Mapping[str, Path], model: str, behaviour: str, chat: bool, scale: StudyScale, layer: int
) -> dict[str, Any]:
    """Return dose-response, table and figure of one behaviour in one model, compared with random directions."""
    llm = language_model(models[model], True)
    source = PocketBehaviour(behaviour, per_topic=10, chat=chat)
    data = BehaviourDataModule(source)
    data.setup()
    fit, test = part(data, FIT), part(data, TEST)
    topic, site = torch.tensor(test.cluster), llm.sites[layer]
    negative, positive = pair_activations(llm, fit)[site]
    vector = (positive - negative).mean(0)
    positive = [c for c in scale.strengths if c > 0]
    random = directions(scale.draws, len(vector), float(vector.norm()))
    shifts = torch.tensor(scale.strengths)[:, None] * vector
    random_shifts = (random[:, None] * torch.tensor(positive)[:, None]).flatten(0, 1)
    control = added(llm, test, None, torch.zeros(1, 1))[0]
    scores = added(llm, test, site, torch.cat([shifts, random_shifts]))
    steered, random_scores = scores[: len(shifts)], scores[len(shifts) :]
    rows = {name: column.T for name, column in behaviour_rows(control, steered).items()}
    by_chance = behaviour_rows(control, random_scores)
    margins = {f"{item.topic}/{i % 10 + 1}": item.margin for i, item in enumerate(source.items())}
    true_margins = torch.tensor([margins[example.id] for example in data.parts[TEST]], dtype=torch.float64)
    drift = llm.drift(reference_texts(chat), {site: lambda h: h + shifts[:, None, None]}, len(shifts))
    result = {
        "model": model,
        "behaviour": behaviour,
        "chat": chat,
        "layer": layer,
        "strengths": list(scale.strengths),
        "prompts": len(test.questions),
        "topics": len(topic.unique()),
        "curves": {
            name: plain(e)
            for name, e in with_unsteered(behaviour_estimates(rows, topic), scale.strengths, UNSTEERED).items()
        },
        "random": {name: by_chance[name].mean(1).unflatten(0, (scale.draws, -1)).tolist() for name in OF_DRAWS},
        "random_figure": by_chance_figure(
            control, random_scores.unflatten(0, (scale.draws, -1))[:, positive.index(SHOWN)]
        ),
        "drift": drift_of(drift, scale.strengths),
        "planted_correlation": float(
            torch.corrcoef(torch.stack([true_margins, (control[:, 0] - control[:, 1]).double()]))[0, 1]
        ),
        "shown": {f"{c:g}": compared(control, steered[scale.strengths.index(c)], topic) for c in (-SHOWN, SHOWN)},
        "kl": [float(kl_mean(kl)) for kl in drift.kl],
    }
    if model != "base" and not chat:
        before = added(language_model(models["base"], True), test, None, torch.zeros(1, 1))[0]
        result["as_a_method"] = compared(before, control, topic)
    return result
