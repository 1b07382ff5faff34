"""The methods of the study, each a family over its strengths, fitted to the training rows."""

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
"""Training rows of the maps that are fitted layer after layer."""
FEW = (0.25, 0.01, 1e-4, 1e-6)
"""Their thresholds: each needs maps of its own."""


class Family(NamedTuple):
    """A method at several strengths, from the weakest effect to the strongest."""

    name: str
    strengths: Sequence[float]
    maps: Sequence[Mapping[int, SteeringMethod]]
    """For each strength the map of every steered layer; a single entry serves all strengths."""

    def scores(self, decisions: Decisions, which: Sequence[int] | None = None) -> Tensor:
        """``[S, n, options]`` logits at all strengths, or at those named by number."""
        which = range(len(self.strengths)) if which is None else which
        if len(self.maps) == 1:
            return decisions.scores(self.maps[0], [self.strengths[s] for s in which])
        return torch.cat([decisions.scores(self.maps[s], [self.strengths[s]]) for s in which])

    def at(self, s: int) -> Mapping[int, SteeringMethod]:
        """The maps of one strength."""
        return self.maps[0 if len(self.maps) == 1 else s]


def families(h: Tensor, error: Tensor, selected: Selected) -> list[Family]:
    """Every method that steers at the last token.

    Args:
        h: ``[layers, n, d]`` training activations.
        error: ``[n]``.
        selected: probes of all layers, by cross-validation in the same rows.
    """
    order = selected.score.argsort(descending=True).tolist()
    best, median, worst, last = order[0], order[len(order) // 2], order[-1], len(h) - 1
    penalty = {layer: PENALTIES[int(selected.best[layer])] for layer in range(len(h))}
    width, nothing = h.shape[-1], torch.zeros(h.shape[1], 1, dtype=torch.int64)

    def fitted(layer: int, make: Callable[[int], SteeringMethod]) -> Mapping[int, SteeringMethod]:
        return {layer: make(width).fit(Activations(h[layer], error, nothing, False))}

    def mera(layer: int, mahalanobis: bool) -> Mapping[int, SteeringMethod]:
        return fitted(layer, lambda d: MERA(d, penalty[layer], mahalanobis=mahalanobis))

    one = {layer: mera(layer, False) for layer in {best, median, worst, last}}
    ours = {layer: mera(layer, True) for layer in {best, last}}
    paper = sorted(PAPER, reverse=True)
    additive = {f"contrastive, k {k}": (lambda d, k=k: Contrastive(d, k)) for k in (50, 100, 200)}
    additive |= {"additive logistic": Logistic, "random direction": RandomDirection}
    return [
        *(Family(name, MULTIPLES, [fitted(best, make)]) for name, make in additive.items()),
        Family("additive error probe", LOGITS, [fitted(best, lambda d: ProbeAdditive(d, penalty[best]))]),
        Family("MERA", THRESHOLDS, [one[best]]),
        Family("MERA, paper's thresholds", paper, [one[best]]),
        Family("MERA, last layer", THRESHOLDS, [one[last]]),
        Family("MERA, median probe", THRESHOLDS, [one[median]]),
        Family("MERA, worst probe", THRESHOLDS, [one[worst]]),
        Family("MERA, contrastive", THRESHOLDS, [fitted(best, lambda d: ContrastiveMERA(d, 100, penalty[best]))]),
        Family("MERA, logistic", THRESHOLDS, [fitted(best, LogisticMERA)]),
        Family("Mahalanobis MERA", THRESHOLDS, [ours[best]]),
        Family("Mahalanobis MERA, paper's thresholds", paper, [ours[best]]),
        Family("Mahalanobis MERA, last layer", THRESHOLDS, [ours[last]]),
        Family("SAE MERA, last layer", THRESHOLDS, [fitted(last, SAEMERA)]),
    ]


def weighed_families(h: Tensor, error: Tensor, selected: Selected) -> list[Family]:
    """MERA for a model whose labels were weighed first: ``error [n]`` is what is wrong after that."""
    nothing, last = torch.zeros(h.shape[1], 1, dtype=torch.int64), len(h) - 1
    penalty, found = PENALTIES[int(selected.best[last])], []
    for name, ours in (("labels weighed, then MERA", False), ("labels weighed, then Mahalanobis MERA", True)):
        method = MERA(h.shape[-1], penalty, mahalanobis=ours).fit(Activations(h[last], error, nothing, False))
        found.append(Family(name, THRESHOLDS, [{last: method}]))
    return found


def sequential(decisions: Decisions, y: Tensor, mahalanobis: bool, name: str) -> Family:
    """MERA at all layers, each fitted to the stream and the errors that the layers below, already steered, leave.

    Probes fitted to unsteered activations would judge a stream that they have never seen. A layer below which too few
    errors are left to fit a probe to is not steered.

    Args:
        decisions: training prompts.
        y: ``[n]`` their labels.
        mahalanobis: which form.
        name: the family's.
    """
    label_of, rows, maps = torch.arange(len(decisions.tokens)), torch.arange(len(y)), list[dict[int, SteeringMethod]]()
    for alpha in FEW:
        below: dict[int, SteeringMethod] = {}
        for layer in decisions.llm.layers:
            scores, h = decisions.observe(below, alpha, layer)
            error = 1 - label_probabilities(scores, label_of)[rows, y]
            if 20 <= (error >= 0.5).sum() <= len(y) - 20:
                seen = Activations(h, error, y.unsqueeze(1), False)
                below[layer] = MERA(h.shape[-1], mahalanobis=mahalanobis).fit(seen)
        maps.append(below)
    return Family(name, FEW, maps)
