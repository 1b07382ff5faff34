"""The study's methods, fitted to the training rows; each is a family over its strengths."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.methods import (
    MERA,
    SAEMERA,
    Contrastive,
    ContrastiveMERA,
    Logistic,
    LogisticMERA,
    ProbeAdditive,
    RandomDirection,
    SteeringMethod,
)
from lightning_steer.metrics.answers import label_probabilities
from lightning_steer.probes.probe_selection import PENALTIES, Selected
from lightning_steer.records import Activations
from lightning_steer.studies.mera.decisions import Decisions
from lightning_steer.studies.mera.settings import LOGITS, MULTIPLES, PAPER, THRESHOLDS

SEQUENTIAL_ROWS = 600
"""Training rows of the maps that are fitted layer by layer."""
FEW = (0.25, 0.01, 1e-4, 1e-6)
"""Thresholds of those maps: each threshold needs its own maps."""


class MethodFamily(NamedTuple):
    """A method at several strengths, from the weakest effect to the strongest."""

    name: str
    strengths: Sequence[float]
    maps: Sequence[Mapping[int, SteeringMethod]]
    """For each strength the map of every steered layer; a single entry serves all strengths."""

    def scores(self, decisions: Decisions, which: Sequence[int] | None = None) -> Tensor:
        """Return logits ``[S, n, options]`` at all strengths, or at those with the given indices."""
        which = range(len(self.strengths)) if which is None else which
        if len(self.maps) == 1:
            return decisions.scores(self.maps[0], [self.strengths[s] for s in which])
        return torch.cat([decisions.scores(self.maps[s], [self.strengths[s]]) for s in which])

    def at(self, s: int) -> Mapping[int, SteeringMethod]:
        """Return the maps of one strength."""
        return self.maps[0 if len(self.maps) == 1 else s]


def families(h: Tensor, error: Tensor, selected: Selected) -> list[MethodFamily]:
    """Fit every method that steers at the last token.

    Args:
        h: ``[layers, n, d]`` training activations.
        error: ``[n]``.
        selected: probes of all layers, chosen by cross-validation on the same rows.
    """
    order = selected.score.argsort(descending=True).tolist()
    best, median, worst, last = order[0], order[len(order) // 2], order[-1], len(h) - 1
    penalty = {layer: PENALTIES[int(selected.best[layer])] for layer in range(len(h))}
    width, no_values = h.shape[-1], torch.zeros(h.shape[1], 1, dtype=torch.int64)

    def fitted(layer: int, make: Callable[[int], SteeringMethod]) -> Mapping[int, SteeringMethod]:
        return {layer: make(width).fit(Activations(h[layer], error, no_values, False))}

    def mera(layer: int, mahalanobis: bool) -> Mapping[int, SteeringMethod]:
        return fitted(layer, lambda d: MERA(d, penalty[layer], mahalanobis=mahalanobis))

    plain = {layer: mera(layer, False) for layer in {best, median, worst, last}}
    mahalanobis = {layer: mera(layer, True) for layer in {best, last}}
    paper = sorted(PAPER, reverse=True)
    additive = {f"contrastive, k {k}": (lambda d, k=k: Contrastive(d, k)) for k in (50, 100, 200)}
    additive |= {"additive logistic": Logistic, "random direction": RandomDirection}
    return [
        *(MethodFamily(name, MULTIPLES, [fitted(best, make)]) for name, make in additive.items()),
        MethodFamily("additive error probe", LOGITS, [fitted(best, lambda d: ProbeAdditive(d, penalty[best]))]),
        MethodFamily("MERA", THRESHOLDS, [plain[best]]),
        MethodFamily("MERA, paper's thresholds", paper, [plain[best]]),
        MethodFamily("MERA, last layer", THRESHOLDS, [plain[last]]),
        MethodFamily("MERA, median probe", THRESHOLDS, [plain[median]]),
        MethodFamily("MERA, worst probe", THRESHOLDS, [plain[worst]]),
        MethodFamily("MERA, contrastive", THRESHOLDS, [fitted(best, lambda d: ContrastiveMERA(d, 100, penalty[best]))]),
        MethodFamily("MERA, logistic", THRESHOLDS, [fitted(best, LogisticMERA)]),
        MethodFamily("Mahalanobis MERA", THRESHOLDS, [mahalanobis[best]]),
        MethodFamily("Mahalanobis MERA, paper's thresholds", paper, [mahalanobis[best]]),
        MethodFamily("Mahalanobis MERA, last layer", THRESHOLDS, [mahalanobis[last]]),
        MethodFamily("SAE MERA, last layer", THRESHOLDS, [fitted(last, SAEMERA)]),
    ]


def weighed_families(h: Tensor, error: Tensor, selected: Selected) -> list[MethodFamily]:
    """Fit MERA to a model with biased labels: ``error [n]`` is the error that the bias leaves."""
    no_values, last = torch.zeros(h.shape[1], 1, dtype=torch.int64), len(h) - 1
    penalty, weighed = PENALTIES[int(selected.best[last])], []
    for name, mahalanobis in (("labels weighed, then MERA", False), ("labels weighed, then Mahalanobis MERA", True)):
        method = MERA(h.shape[-1], penalty, mahalanobis=mahalanobis).fit(Activations(h[last], error, no_values, False))
        weighed.append(MethodFamily(name, THRESHOLDS, [{last: method}]))
    return weighed


def sequential(decisions: Decisions, y: Tensor, mahalanobis: bool, name: str) -> MethodFamily:
    """Fit MERA at all layers: each to the activations and errors that remain after the layers below are steered.

    Probes fitted to unsteered activations would be applied to activations that they have never seen. A layer where too
    few errors remain to fit a probe is not steered.

    Args:
        decisions: training prompts.
        y: ``[n]`` their labels.
        mahalanobis: whether to fit Mahalanobis MERA.
        name: name of the family.
    """
    label_of, rows, maps = torch.arange(len(decisions.tokens)), torch.arange(len(y)), list[dict[int, SteeringMethod]]()
    for alpha in FEW:
        below: dict[int, SteeringMethod] = {}
        for layer in decisions.llm.layers:
            scores, h = decisions.observe(below, alpha, layer)
            error = 1 - label_probabilities(scores, label_of)[rows, y]
            if 20 <= (error >= 0.5).sum() <= len(y) - 20:
                activations = Activations(h, error, y.unsqueeze(1), False)
                below[layer] = MERA(h.shape[-1], mahalanobis=mahalanobis).fit(activations)
        maps.append(below)
    return MethodFamily(name, FEW, maps)
