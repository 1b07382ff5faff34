"""Methods compared where they do the same: at equal effect, and at equal drift of neutral text.

A method's figures at a strength between two that were run are read off the straight line between them, example by
example, so that their intervals over terms are those of a mean like any other.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.methods import ACE, LEACE, GaussianTransport, Logistic, MeanDifference, RandomDirection, Ridge
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.metrics.columns import estimate_columns
from lightning_steer.metrics.drift import kl_mean
from lightning_steer.metrics.stereoset_effect import KINDS
from lightning_steer.records import Activations
from lightning_steer.studies.fidelity.settings import Arm
from lightning_steer.studies.fidelity.subject import Subject, added, lessons, neutral
from lightning_steer.studies.fidelity.sweep import along, plain

STRENGTHS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.5, 6.0)
EFFECT = 0.1
"""Share of all examples that moved from the stereotype to its opposite."""
KL = 0.01
"""Nats per token of neutral text."""
OUTCOMES = ("intended", "opposed", "collateral", "fidelity", "p_unrelated", "margin_change")


def methods(draws: int) -> dict[str, Callable[[int], SteeringMethod]]:
    """Closed forms by name, and random directions as long as the mean difference."""
    random = {f"random {i}": lambda width, i=i: RandomDirection(width, seed=i) for i in range(draws)}
    return {
        "mean difference": MeanDifference,
        "logistic": Logistic,
        "ridge": Ridge,
        "LEACE": LEACE,
        "ACE": ACE,
        "transport": GaussianTransport,
        **random,
    }


def crossing(x: Sequence[float], level: float) -> tuple[int, float] | None:
    """Where a curve that begins at 0 first reaches a level: the interval, and how far into it; None if never."""
    for i, value in enumerate(x):
        if value >= level:
            before = x[i - 1] if i else 0.0
            return i, (level - before) / (value - before)
    return None


def at(column: Tensor, place: tuple[int, float]) -> Tensor:
    """``[n]`` of ``column [n, 1 + S]``, whose first entry is unsteered, between two strengths."""
    i, share = place
    return column[:, i] * (1 - share) + column[:, i + 1] * share


@torch.no_grad()
def run(arm: Arm, models: Mapping[str, Path], kind: str, draws: int, layer: int) -> dict[str, Any]:
    """Every method's curve, and its figures at equal effect and at equal drift."""
    subject = Subject(arm, models, kind)
    llm, test = subject.llm, subject.test
    site, texts = llm.sites[layer], neutral(arm.chat)
    base = added(llm, test.contrasts, None, torch.zeros(1, 1))[0]
    negative, positive = lessons(llm, subject.fit.contrasts)[site]
    error = torch.cat([torch.ones(len(negative)), torch.zeros(len(positive))])
    seen = Activations(torch.cat([negative, positive]), error, (error < 0.5).long().unsqueeze(1), True)
    strength = torch.tensor(STRENGTHS)
    found: dict[str, Any] = {"arm": arm.name, "kind": kind, "layer": layer, "strengths": STRENGTHS, "methods": {}}
    for name, make in methods(draws).items():
        method = make(llm.width(site)).fit(seen)

        def sweep(h: Tensor, method: SteeringMethod = method) -> Tensor:
            return method(h.expand(len(strength), -1, -1, -1), strength)

        scores = llm.scores(list(test.contrasts.questions), {site: sweep}, len(strength))
        kl = [float(kl_mean(one)) for one in llm.drift(texts, {site: sweep}, len(strength)).kl]
        columns = along(base, torch.cat([base[None], scores]), (0.0, *STRENGTHS))
        kept = {measure: columns[measure] for measure in OUTCOMES}
        curve = {measure: plain(e)[1:] for measure, e in estimate_columns(kept, KINDS, test.term).items()}
        one: dict[str, Any] = {"curve": {**curve, "kl": kl}}
        marks = {
            "equal effect": crossing([value for value, *_ in curve["intended"]], EFFECT),
            "equal KL": crossing(kl, KL),
        }
        for mark, place in marks.items():
            if place is not None:
                between = {m: at(column, place) for m, column in kept.items()}
                cells = estimate_columns(between, KINDS, test.term)
                grid = [0.0, *kl]
                drift = grid[place[0]] * (1 - place[1]) + grid[place[0] + 1] * place[1]
                one[mark] = {**{m: plain(e)[0] for m, e in cells.items()}, "kl": drift}
        found["methods"][name] = one
    return found
