"""Compare methods at equal effect, and at equal drift of neutral text.

Between two strengths that were run, a method's figures are interpolated linearly, example by
example, so their intervals over terms are those of an ordinary mean.
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
from lightning_steer.studies.fidelity.subject import Subject, added, pair_activations, reference_texts
from lightning_steer.studies.fidelity.sweep import along, plain

STRENGTHS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.5, 6.0)
EFFECT = 0.1
"""Share of all examples that move from the stereotype to its opposite."""
KL = 0.01
"""Nats per token of neutral text."""
OUTCOMES = ("intended", "opposed", "collateral", "fidelity", "p_unrelated", "margin_change")


def methods(draws: int) -> dict[str, Callable[[int], SteeringMethod]]:
    """Return the closed-form methods by name, and random directions as long as the mean difference."""
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
    """Return where a curve that starts at 0 first reaches a level: interval and fraction of it; None if never."""
    for i, value in enumerate(x):
        if value >= level:
            before = x[i - 1] if i else 0.0
            return i, (level - before) / (value - before)
    return None


def between_strengths(column: Tensor, place: tuple[int, float]) -> Tensor:
    """Interpolate ``column [n, 1 + S]``, whose first entry is unsteered, between two strengths: ``[n]``."""
    i, share = place
    return column[:, i] * (1 - share) + column[:, i + 1] * share


@torch.no_grad()
def run(arm: Arm, models: Mapping[str, Path], kind: str, draws: int, layer: int) -> dict[str, Any]:
    """Return every method's curve, and its figures at equal effect and at equal drift."""
    subject = Subject(arm, models, kind)
    llm, test = subject.llm, subject.test
    site, texts = llm.sites[layer], reference_texts(arm.chat)
    base = added(llm, test.contrasts, None, torch.zeros(1, 1))[0]
    negative, positive = pair_activations(llm, subject.fit.contrasts)[site]
    error = torch.cat([torch.ones(len(negative)), torch.zeros(len(positive))])
    activations = Activations(torch.cat([negative, positive]), error, (error < 0.5).long().unsqueeze(1), True)
    strength = torch.tensor(STRENGTHS)
    result: dict[str, Any] = {"arm": arm.name, "kind": kind, "layer": layer, "strengths": STRENGTHS, "methods": {}}
    for name, make in methods(draws).items():
        method = make(llm.width(site)).fit(activations)

        def sweep(h: Tensor, method: SteeringMethod = method) -> Tensor:
            return method(h.expand(len(strength), -1, -1, -1), strength)

        scores = llm.scores(list(test.contrasts.questions), {site: sweep}, len(strength))
        kl = [float(kl_mean(text_kl)) for text_kl in llm.drift(texts, {site: sweep}, len(strength)).kl]
        columns = along(base, torch.cat([base[None], scores]), (0.0, *STRENGTHS))
        selected = {measure: columns[measure] for measure in OUTCOMES}
        curve = {measure: plain(e)[1:] for measure, e in estimate_columns(selected, KINDS, test.term).items()}
        figures: dict[str, Any] = {"curve": {**curve, "kl": kl}}
        marks = {
            "equal effect": crossing([value for value, *_ in curve["intended"]], EFFECT),
            "equal KL": crossing(kl, KL),
        }
        for mark, place in marks.items():
            if place is not None:
                between = {m: between_strengths(column, place) for m, column in selected.items()}
                cells = estimate_columns(between, KINDS, test.term)
                grid = [0.0, *kl]
                drift = grid[place[0]] * (1 - place[1]) + grid[place[0] + 1] * place[1]
                figures[mark] = {**{m: plain(e)[0] for m, e in cells.items()}, "kl": drift}
        result["methods"][name] = figures
    return result
