"""The numbers behind the declared contrasts: one model with its own and the base model's vector, by target term.

The sentences are from a draw on which no setting was chosen; all draws share their target terms. Numbers are means over
a term's examples, so contrasts between models and over trainings can be taken term by term.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.metrics.drift import kl_mean
from lightning_steer.studies.fidelity import anisotropy
from lightning_steer.studies.fidelity.settings import BIAS_TYPES, LAYER, Arm
from lightning_steer.studies.fidelity.subject import Subject, SubjectSplit, added, reference_texts
from lightning_steer.studies.fidelity.sweep import rows_of

SEED = 1
"""Seed of the examples that judge; everything exploratory, and version 0.1.0, uses seed 0."""
STRENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0)
MEASURES = ("pattern_nats", "pattern_shares", "margin_change", "stereotype_change", "unrelated_change", "fidelity")
EXPLAINERS = ("vector without mean", "vector without top", "stream without mean", "stream without top")
"""Variants that remove anisotropy."""
GAP = "margin_change"
"""Measure of a gap between models: log-probability of the opposite minus that of the stereotype."""


def by_term(rows: Tensor, term: Tensor) -> list[list[float]]:
    """Return means ``[C][T]`` of ``rows [C, n]`` over each of T terms, in ascending order."""
    return torch.stack([rows[:, term == number].mean(1) for number in term.unique()], 1).tolist()


def steered(subject: Subject, part: SubjectSplit, site: str, vector: Tensor) -> dict[str, Tensor]:
    """Return ``{measure: [S, n]}`` of a part's examples under a vector at every strength."""
    base = added(subject.llm, part.contrasts, None, torch.zeros(1, 1))[0]
    scores = added(subject.llm, part.contrasts, site, torch.tensor(STRENGTHS)[:, None] * vector)
    return rows_of(base, scores, "suppress")


def judged(subject: Subject, site: str, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return what chooses a dose: fidelity on selecting terms and KL on neutral text, each ``[R, S]``.

    Args:
        subject: model, terms.
        site: the steered site.
        vectors: ``[R, d]``, each added at all S strengths.
    """
    shifts = (vectors[:, None] * torch.tensor(STRENGTHS)[:, None]).flatten(0, 1)
    base = added(subject.llm, subject.select.contrasts, None, torch.zeros(1, 1))[0]
    fidelity = rows_of(base, added(subject.llm, subject.select.contrasts, site, shifts), "suppress")["fidelity"]
    drift = subject.llm.drift(reference_texts(False), {site: lambda h: h + shifts[:, None, None]}, len(shifts))
    kl = torch.stack([kl_mean(kl) for kl in drift.kl])
    return fidelity.mean(1).view(len(vectors), -1), kl.view(len(vectors), -1)


@torch.no_grad()
def pair(
    models: Mapping[str, Path], model: str, source: str, kind: str, layers: Sequence[int], seed: int = SEED
) -> dict[str, Any]:
    """Return the effects of a source's vector in a model at each layer and strength, by term, and selection figures."""
    subject = Subject(Arm(model, model, source), models, kind, seed)
    result: dict[str, Any] = {"rows": {}, "select": {}, "kl": {}, "norm": {}}
    for layer in layers:
        site, key = subject.llm.sites[layer], str(layer)
        rows = steered(subject, subject.test, site, subject.vectors[site])
        result["rows"][key] = {name: by_term(rows[name], subject.test.term) for name in MEASURES}
        fidelity, kl = judged(subject, site, subject.vectors[site][None])
        result["select"][key], result["kl"][key] = fidelity[0].tolist(), kl[0].tolist()
        result["norm"][key] = float(subject.vectors[site].norm())
    return result


@torch.no_grad()
def without_anisotropy(
    models: Mapping[str, Path], model: str, layers: Sequence[int]
) -> dict[str, dict[str, list[float]]]:
    """Return the gap's measure ``{layer: {variant: [T]}}`` at strength 1 by term of both types."""
    subjects = [Subject(Arm(model, model, model), models, kind, SEED) for kind in BIAS_TYPES]
    lengths = [Subject(Arm("base", "base", "base"), models, kind, SEED).vectors for kind in BIAS_TYPES]
    llm = subjects[0].llm
    pairs = [subject.fit.contrasts[0] for subject in subjects]
    texts = [q.prompt + q.choices[0] for batch in pairs for q in (*batch.negative, *batch.positive)] + reference_texts(
        False
    )
    states = anisotropy.states(llm, texts)[0]
    by_layer: dict[str, dict[str, list[float]]] = {}
    for layer in layers:
        site, by_variant = llm.sites[layer], dict[str, list[float]]()
        axis = anisotropy.axes(states[site])
        for subject, vectors in zip(subjects, lengths, strict=True):
            scores = anisotropy.steered(subject, site, axis, 1.0, vectors[site].norm())
            for variant in (anisotropy.PLAIN, anisotropy.LENGTH, *EXPLAINERS):
                base, after = scores[variant]
                rows = rows_of(base[0], after, "suppress")[GAP]
                by_variant.setdefault(variant, []).extend(by_term(rows, subject.test.term)[0])
        by_layer[str(layer)] = by_variant
    return by_layer


def control(models: Mapping[str, Path], model: str, layers: Sequence[int], seed: int) -> dict[str, Any]:
    """Return the numbers of a model with the planted pattern and its own vector, on a draw of examples."""
    own = {kind: pair(models, model, model, kind, layers, seed) for kind in BIAS_TYPES}
    return {"model": model, "strengths": STRENGTHS, "own": own}


def run(models: Mapping[str, Path], model: str, layers: Sequence[int]) -> dict[str, Any]:
    """Return all numbers of one model: vectors in it, its vector in the base model, and results without anisotropy."""
    pairs = {"own": (model, model), "base": (model, "base"), "in base": ("base", model)}
    return {
        "model": model,
        "strengths": STRENGTHS,
        **{
            name: {kind: pair(models, steered_model, source, kind, layers) for kind in BIAS_TYPES}
            for name, (steered_model, source) in pairs.items()
            if model not in ("base", "planted") or name == "own"
        },
        "without": {} if model == "planted" else without_anisotropy(models, model, [LAYER])[str(LAYER)],
    }
