"""The runs of the study as reports, as every other run leaves one: the layer and strength chosen, then judged."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.data.contrasts import in_chat
from lightning_steer.data.pocket_prompts import task_prompts
from lightning_steer.data.pocket_tasks import NAMES as TASKS
from lightning_steer.llm import LLM
from lightning_steer.metrics.clustered import UNIT, jackknifed, means
from lightning_steer.metrics.drift import by_task, entanglement, flips
from lightning_steer.metrics.interval import weighted_mean
from lightning_steer.metrics.jackknife import leave_one_out
from lightning_steer.metrics.stereoset_effect import StereoSetEffect
from lightning_steer.studies.fidelity.settings import Arm, Scale
from lightning_steer.studies.fidelity.subject import Subject, directions
from lightning_steer.studies.fidelity.sweep import plain
from lightning_steer.tokens import Question

SHARES = ("p_stereotype", "p_anti", "p_unrelated")
HEADLINE = (*SHARES, "intended", "opposed", "collateral", "fidelity", "ss", "lms", "icat")
ALSO = (
    *("ss_change", "lms_change", "icat_change", "icat_lms_part", "icat_ss_part", "margin_change"),
    *("stereotype_change", "anti_change", "unrelated_change", "pattern_shares", "pattern_nats"),
)
PROMPTS = 100
"""Of each task that is not steered."""


def chosen(sweep: Mapping[str, Any], aim: str) -> tuple[int, int, float]:
    """Layer, index and value of the strength with the highest fidelity on the selecting terms; ties to the weaker."""
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
    """What the first of ``vectors [C, d]`` does to tasks that it is not about, and the range of all others."""
    answers, scores, task = [], [], []
    for number, name in enumerate(TASKS):
        items = task_prompts(name, PROMPTS, chat=chat)
        asked = [
            Question(in_chat(i.prompt) if chat else i.prompt, tuple(f" {label}" for label in i.labels)) for i in items
        ]
        plain_, steered = (
            llm.scores(asked),
            llm.scores(asked, {site: lambda h: h + vectors[:, None, None]}, len(vectors)),
        )
        both = torch.cat([plain_, steered])
        right = torch.tensor([item.label for item in items])
        answers.append(both.argmax(-1).T)
        scores.append((both.argmax(-1) == right).double().T)
        task += [number] * len(items)
    answer, accuracy, of = torch.cat(answers), torch.cat(scores), torch.tensor(task)
    moved = flips(answer[:, 0], answer[:, 1:], of)
    found: dict[str, Any] = {"metrics": {}, "random": {}}
    for number, name in enumerate(TASKS):
        rows = (answer[of == number, 1:2] != answer[of == number, :1]).double()
        prompt = torch.arange(len(rows))
        found["metrics"][f"flips_{name}"] = estimate(plain(means({"x": rows}, prompt, {"x": UNIT})["x"])[0], len(rows))
        found["random"][f"flips_{name}"] = spread(moved[number, 1:])
    change = accuracy[:, 1:] - accuracy[:, :1]
    value = entanglement(accuracy[:, 0], accuracy[:, 1:], of)
    left = entanglement(accuracy[:, 0], accuracy[:, 1:2], of, leave_one_out(torch.arange(len(of))))
    found["metrics"]["entanglement"] = estimate(plain(jackknifed(value[:1], left, (0.0, 1.0)))[0], len(of))
    found["random"]["entanglement"] = spread(value[1:])
    found["accuracy_changes"] = dict(zip(TASKS, by_task(change[:, :1], of)[:, 0].tolist(), strict=True))
    found["accuracy"] = float(weighted_mean(accuracy[:, 0]))
    return found


def estimate(interval: list[float], n: int) -> dict[str, float]:
    """As in every report."""
    return {"value": interval[0], "low": interval[1], "high": interval[2], "n": n}


def spread(draws: Any) -> dict[str, float]:
    """Mean of random directions, and the range of 95 % of them."""
    values = torch.as_tensor(draws, dtype=torch.float64)
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"value": float(values.mean()), "low": low, "high": high, "n": len(values)}


def report(
    arm: Arm, models: Mapping[str, Path], kind: str, aim: str, sweep: Mapping[str, Any], scale: Scale
) -> dict[str, Any]:
    """One run: a vector at the layer and strength that did best on other terms."""
    layer, i, c = chosen(sweep, aim)
    subject = Subject(arm, models, kind)
    site, key, n = subject.llm.sites[layer], str(layer), sweep["terms"]
    zero, positive = sweep["strengths"].index(0.0), [one for one in sweep["strengths"] if one > 0]
    steered, drift, place = sweep["steered"][key], sweep["drift"][key], positive.index(abs(c))
    draws = {name: [draw[place] for draw in column] for name, column in sweep["random"][key][aim].items()}
    vector = subject.vectors[site]
    pushes = torch.cat([c * vector[None], directions(scale.draws, len(vector), abs(c) * float(vector.norm()))])
    aside = other_tasks(subject.llm, site, pushes, arm.chat)
    metrics = {name: estimate(steered[name][i], n) for name in (*HEADLINE, *ALSO)}
    metrics |= {
        "strength": estimate([c, c, c], len(subject.select.examples)),
        "layer": estimate([layer] * 3, len(subject.select.examples)),
        "neutral_kl": estimate(drift["kl"][i], 64),
        "neutral_kl_p95": estimate(drift["kl_p95"][i], 64),
        "perplexity_ratio": estimate(drift["perplexity_ratio"][i], 64),
        **aside["metrics"],
    }
    unsteered = {name: estimate(steered[name][zero], n) for name in HEADLINE}
    random = {name: spread(draws[name]) for name in HEADLINE if name in draws} | aside["random"]
    baselines = {"unsteered": unsteered, "random": random}
    curve: dict[str, Any] = {"x": sweep["strengths"]}
    for name in HEADLINE:
        curve[name] = {end: [cell[j] for cell in steered[name]] for j, end in enumerate(("value", "low", "high"))}
    return {
        "experiment": "fidelity",
        "task": f"{aim} stereotypes of {kind}s in the pocket language, {'chat' if arm.chat else 'plain text'}",
        "backbone": f"{models[arm.model]}, vector of {models[arm.vector]}",
        "method": f"mean difference at layer {layer}, strength {c:g}",
        "seed": 0,
        "versions": {name: version(name) for name in ("torch", "lightning", "torchmetrics")},
        "verdict": StereoSetEffect().verdict(metrics, baselines),
        "choice": f"the highest fidelity on {len(subject.select.examples)} examples of other terms",
        "warnings": StereoSetEffect().warnings(metrics, baselines),
        "metrics": metrics,
        "baselines": baselines,
        "training_negatives": {},
        "dose_response": {"measures": [*SHARES, "fidelity"], "unit": "share of held-out examples"},
        "curves": {"strength": curve},
        "profile": {},
    }
