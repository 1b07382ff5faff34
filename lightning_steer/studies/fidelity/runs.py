"""The study's runs as ordinary reports: layer and strength are chosen, then judged."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_steer.data.pair_batches import in_chat
from lightning_steer.data.pocket.prompts import task_prompts
from lightning_steer.data.pocket.tasks import NAMES as TASKS
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.metrics.columns import as_numbers, estimate_columns
from lightning_steer.metrics.drift import by_task, entanglement, flips
from lightning_steer.metrics.stereoset_effect import StereoSetEffect
from lightning_steer.metrics.weighted import weighted_mean
from lightning_steer.modules.figures import random_range
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Share, Smooth
from lightning_steer.studies.fidelity.settings import Arm, StudyScale
from lightning_steer.studies.fidelity.subject import Subject, directions
from lightning_steer.versions import versions

SHARES = ("p_stereotype", "p_anti", "p_unrelated")
HEADLINE = (*SHARES, "intended", "opposed", "collateral", "fidelity", "ss", "lms", "icat")
ALSO = (
    *("ss_change", "lms_change", "icat_change", "icat_lms_part", "icat_ss_part", "margin_change"),
    *("stereotype_change", "anti_change", "unrelated_change", "pattern_shares", "pattern_nats"),
)
PROMPTS = 100
"""Number of prompts of each task that is not steered."""


def chosen(sweep: Mapping[str, Any], aim: str) -> tuple[int, int, float]:
    """Return layer, index and value of the strength with the highest fidelity on selecting terms; ties: the weakest."""
    sign = 1 if aim == "suppress" else -1
    options = [
        (fidelity, -abs(c), -layer, layer, i, c)
        for layer in sweep["layers"]
        for i, (c, fidelity) in enumerate(zip(sweep["strengths"], sweep["select"][str(layer)], strict=True))
        if c * sign > 0
    ]
    *_, layer, i, c = max(options)
    return layer, i, c


@torch.no_grad()
def other_tasks(llm: LLM, site: str, vectors: Tensor, chat: bool) -> dict[str, Any]:
    """Measure the effect of the first of ``vectors [C, d]`` on other tasks, and the range of all other vectors."""
    answers, scores, task = [], [], []
    for number, name in enumerate(TASKS):
        items = task_prompts(name, PROMPTS, chat=chat)
        questions = [
            MultipleChoice(in_chat(i.prompt) if chat else i.prompt, tuple(f" {label}" for label in i.labels))
            for i in items
        ]
        unsteered, steered = (
            llm.scores(questions),
            llm.scores(questions, {site: lambda h: h + vectors[:, None, None]}, len(vectors)),
        )
        all_scores = torch.cat([unsteered, steered])
        right = torch.tensor([item.label for item in items])
        answers.append(all_scores.argmax(-1).T)
        scores.append((all_scores.argmax(-1) == right).double().T)
        task += [number] * len(items)
    answer, accuracy, task_index = torch.cat(answers), torch.cat(scores), torch.tensor(task)
    flip_rates = flips(answer[:, 0], answer[:, 1:], task_index)
    result: dict[str, Any] = {"metrics": {}, "random": {}}
    for number, name in enumerate(TASKS):
        key = f"flips_{name}"
        rows = (answer[task_index == number, 1] != answer[task_index == number, 0]).double()
        own_estimate = estimate_columns({key: rows}, {key: Share()}, None)[key][0]
        result["metrics"][key] = own_estimate._asdict()
        result["random"][key] = random_range(flip_rates[number, 1:], own_estimate.value, False)
    change = accuracy[:, 1:] - accuracy[:, :1]
    own_estimate = entangled(accuracy[:, 0], accuracy[:, 1], task_index)
    result["metrics"]["entanglement"] = own_estimate._asdict()
    draws = entanglement(accuracy[:, 0], accuracy[:, 2:], task_index)
    result["random"]["entanglement"] = random_range(draws, own_estimate.value, False)
    result["accuracy_changes"] = dict(zip(TASKS, by_task(change[:, :1], task_index)[:, 0].tolist(), strict=True))
    result["accuracy"] = float(weighted_mean(accuracy[:, 0]))
    return result


def entangled(base: Tensor, steered: Tensor, task: Tensor) -> Estimate:
    """Estimate the entanglement of one candidate's scores ``[n]`` on items of several tasks ``[n]``."""

    def statistic(weights: NDArray, *scores: NDArray) -> NDArray:
        before, after = map(torch.from_numpy, scores)
        return entanglement(before[:, 0], after, task, torch.from_numpy(weights)).numpy()

    return Smooth(statistic, 0, 1).estimate(as_numbers(base), as_numbers(steered))[0]


def estimate(fields: Sequence[Any]) -> dict[str, Any]:
    """Return an estimate of a stored sweep in the form of reports; a stored null is a value that is not finite."""
    value, low, high = (math.nan if end is None else end for end in fields[:3])
    return Estimate(value, low, high, *fields[3:])._asdict()


def chosen_value(value: float, subject: Subject) -> dict[str, Any]:
    """Return a setting that was chosen on the selecting terms, in the form of an estimate without an interval."""
    n, terms = len(subject.select.examples), len(subject.select.term.unique())
    return Estimate(value, math.nan, math.nan, n, terms, "none: it was chosen")._asdict()


def report(
    arm: Arm, models: Mapping[str, Path], kind: str, aim: str, sweep: Mapping[str, Any], scale: StudyScale
) -> dict[str, Any]:
    """Return the report of one run: a vector at the layer and strength that did best on other terms."""
    layer, i, c = chosen(sweep, aim)
    subject = Subject(arm, models, kind)
    site, key = subject.llm.sites[layer], str(layer)
    zero, positive = sweep["strengths"].index(0.0), [strength for strength in sweep["strengths"] if strength > 0]
    steered, drift, position = sweep["steered"][key], sweep["drift"][key], positive.index(abs(c))
    draws = {name: [draw[position] for draw in column] for name, column in sweep["random"][key][aim].items()}
    vector = subject.vectors[site]
    shifts = torch.cat([c * vector[None], directions(scale.draws, len(vector), abs(c) * float(vector.norm()))])
    side_effects = other_tasks(subject.llm, site, shifts, arm.chat)
    metrics = {name: estimate(steered[name][i]) for name in (*HEADLINE, *ALSO)}
    metrics |= {
        "strength": chosen_value(c, subject),
        "layer": chosen_value(layer, subject),
        **{name: estimate(column[i]) for name, column in drift.items()},
        **side_effects["metrics"],
    }
    unsteered = {name: estimate(steered[name][zero]) for name in HEADLINE}
    better = StereoSetEffect.higher_is_better
    random = {n: random_range(draws[n], metrics[n]["value"], better.get(n)) for n in HEADLINE if n in draws}
    random |= side_effects["random"]
    baselines = {"baseline": unsteered, "random_control": random}
    curve: dict[str, Any] = {"x": sweep["strengths"]}
    for name in HEADLINE:
        curve[name] = {end: [cell[j] for cell in steered[name]] for j, end in enumerate(("value", "low", "high"))}
    return {
        "experiment": "fidelity",
        "task": f"{aim} stereotypes of {kind}s in the pocket language, {'chat' if arm.chat else 'plain text'}",
        "backbone": f"{models[arm.model]}, vector of {models[arm.vector]}",
        "method": f"mean difference at layer {layer}, strength {c:g}",
        "seed": 0,
        "versions": versions(),
        "verdict": StereoSetEffect().verdict(metrics, baselines),
        "choice": f"the highest fidelity on {len(subject.select.examples)} examples of other terms",
        "warnings": StereoSetEffect().warnings(metrics, baselines),
        "metrics": metrics,
        "baselines": baselines,
        "fitted_rows": {},
        "dose_response": {"measures": [*SHARES, "fidelity"], "unit": "share of held-out examples"},
        "curves": {"strength": curve},
        "profile": {},
    }
