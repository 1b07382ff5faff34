"""The study's declaration, and the results of its contrasts."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_steer.statistics.claims import Result, above, below, share_within
from lightning_steer.studies.declaration import Contrast, Declaration, Question
from lightning_steer.studies.fidelity.planted import EFFECT, EFFECTS
from lightning_steer.studies.fidelity.settings import BIAS_TYPES, LAYER, NARROW
from lightning_steer.studies.fidelity.verdict import EXPLAINERS, SEED, STRENGTHS

Parts = Mapping[str, Mapping[str, Any]]
DRAWS = f"examples of seed {SEED}; narrow models of training seeds {', '.join(name[7:] for name in NARROW)}"
LIMIT = 0.25
"""A gap counts as not explained if a smaller share of it goes away."""
BUDGET = 0.05
"""Largest KL on neutral text that a dose may cost, nats per token."""
AT = f"layer {LAYER}, strength 1"
ONE = STRENGTHS.index(1.0)
TERMS = (
    "target terms of the pocket language, for these models (one base model, one tuned with replay, five narrow ones)"
)
SEEDS = "training draws of the narrow model, from one base model"
PLANTED = (
    f"neurons that make unrelated sentences fall {EFFECT:g} nats a token further than stereotypes, in the tuned model"
)


def _pattern(name: str, measure: str, words: str) -> Question:
    contrasts = tuple(
        Contrast(f"{model}, {kind}s", f"{words}, {AT}, own vector", "below", primary=model == "tuned")
        for model in ("tuned", "narrow")
        for kind in BIAS_TYPES
    )
    text = "In tuned models stereotypes fall further than what is unrelated: the contrary of the published pattern."
    return Question(f"{name}: {measure}", text, contrasts, TERMS, PLANTED)


NATS = _pattern(
    "Pattern", "log-probabilities", "change of the stereotype less that of the unrelated sentence, nats a token"
)
SHARES = _pattern("Pattern", "shares", "change of choosing the stereotype less that of choosing the unrelated sentence")
CONTROL = Question(
    "Positive control",
    "In a tuned model in which the published pattern is planted, it is found.",
    tuple(Contrast(f"planted, {kind}s", f"as log-probabilities above, {AT}", "above") for kind in BIAS_TYPES),
    TERMS,
    PLANTED,
)
LOST = Question(
    "What narrow tuning lost",
    f"The vector, the response to it, or both? Change of the margin (opposite less stereotype, nats a token) at {AT}; "
    "mean over both bias types.",
    (
        Contrast("vector, in the narrow model", "base model's vector less its own", primary=True),
        Contrast("vector, in the base model", "base model's vector less the narrow one's"),
        Contrast("response, to the base model's vector", "in the base model less in the narrow one"),
        Contrast("response, to the narrow model's vector", "in the base model less in the narrow one"),
    ),
    SEEDS,
    "the base model's own vector, which moves its margin by .05 nats on examples of seed 0",
)
DOSE = Question(
    "Dose of the narrow model's own vector",
    f"Fidelity at the layer and strength (up to {STRENGTHS[-1]:g}) with the highest fidelity on selecting terms, at "
    f"most {BUDGET:g} nats of KL on neutral text.",
    (
        Contrast("own vector moves as meant", "fidelity, own vector", primary=True),
        Contrast("base model's vector moves more", "fidelity, base model's vector less own"),
    ),
    SEEDS,
    "the base model's vector in the same models",
)
ANISOTROPY = Question(
    "Anisotropy",
    f"Less than {LIMIT:g} of the gap to the base model (change of the margin at {AT}) goes away without the mean or "
    "the top component; shares of the gap, with 90 % intervals.",
    tuple(
        Contrast(f"{model}, {variant}", "share of the gap that goes away", "within", LIMIT)
        for model in ("tuned", "narrow")
        for variant in EXPLAINERS
    ),
    TERMS,
    "none planted: equivalence is shown or not by the interval",
)
DECLARATION = Declaration(
    "fidelity",
    (NATS, SHARES, CONTROL, LOST, DOSE, ANISOTROPY),
    (
        "version 0.1.0: all layers and nine strengths on examples of seed 0, one narrow model of seed 0; from these "
        "stem the layer, the strength and the directions of the contrasts",
        "sizes of the pattern in base and tuned model on examples of seed 0, layer 2, strengths 1, 2, 4 and 8",
        "the planted neurons' size is set on selecting terms of seed 0; on that draw's test terms the planted pattern "
        "is .013 nats for towns and .022 for trades",
    ),
    DRAWS,
)


AGAIN = Declaration(
    "fidelity, second positive control",
    (
        Question(
            "Positive control, again",
            f"The same with {EFFECTS['planted-2']:g} nats planted.",
            CONTROL.contrasts,
            TERMS,
            f"neurons as before, set to {EFFECTS['planted-2']:g} nats a token on selecting terms of seed 0",
        ),
    ),
    (
        f"the first declaration's verdicts: {EFFECT:g} nats planted were .011 for towns and .018 for trades, found "
        "in 83 and 100 % of redrawn sets of terms",
    ),
    "examples of seed 2",
)
"""Declaration of a control only: no claim of the study rests on its draw."""
AGAIN_SEED = 2


def rows(part: Mapping[str, Any], vector: str, kind: str, measure: str, layer: int = LAYER, i: int = ONE) -> NDArray:
    """Return a measure by term, ``[T]``."""
    return np.array(part[vector][kind]["rows"][str(layer)][measure][i])


def _over_trainings(parts: Parts, take: Callable[[Mapping[str, Any]], NDArray]) -> NDArray:
    return np.mean([take(parts[f"verdict-{name}"]) for name in NARROW], axis=0)


def _patterns(parts: Parts, measure: str, question: Question) -> dict[str, Result]:
    count, results = len(question.contrasts), {}
    for kind in BIAS_TYPES:
        tuned = rows(parts["verdict-tuned"], "own", kind, measure)
        narrow = _over_trainings(parts, lambda part, kind=kind: rows(part, "own", kind, measure))
        results |= {f"tuned, {kind}s": below(tuned, 0, count), f"narrow, {kind}s": below(narrow, 0, count)}
    return results


def lost(parts: Parts, layer: int = LAYER) -> tuple[NDArray, ...]:
    """Return the values ``[seeds]`` of the contrasts of :data:`LOST` at a layer, strength 1."""

    def mean(name: str, vector: str) -> float:
        part = parts[f"verdict-{name}"]
        return float(np.mean([rows(part, vector, kind, "margin_change", layer) for kind in BIAS_TYPES]))

    base = mean("base", "own")
    own_vector, base_vector, in_base = (
        np.array([mean(name, vector) for name in NARROW]) for vector in ("own", "base", "in base")
    )
    return base_vector - own_vector, base - in_base, base - base_vector, in_base - own_vector


def _lost(parts: Parts) -> dict[str, Result]:
    units = lost(parts)
    return {c.name: above(u, 0, len(units)) for c, u in zip(LOST.contrasts, units, strict=True)}


def chosen(part: Mapping[str, Any]) -> tuple[int, int]:
    """Return the layer and strength index with the highest fidelity on selecting terms within the budget."""
    allowed = [
        (fidelity, -i, -int(layer))
        for layer, column in part["select"].items()
        for i, fidelity in enumerate(column)
        if part["kl"][layer][i] <= BUDGET
    ]
    _, i, layer = max(allowed)
    return -layer, -i


def best(parts: Parts, vector: str) -> NDArray:
    """Return fidelity ``[seeds]`` at the dose chosen for each narrow model and bias type, averaged over bias types."""

    def at_chosen_dose(part: Mapping[str, Any], kind: str) -> float:
        layer, i = chosen(part[vector][kind])
        return float(rows(part, vector, kind, "fidelity", layer, i).mean())

    return np.array(
        [np.mean([at_chosen_dose(parts[f"verdict-{name}"], kind) for kind in BIAS_TYPES]) for name in NARROW]
    )


def explained(without: Mapping[str, Mapping[str, Any]], model: str, variant: str) -> tuple[NDArray, NDArray]:
    """Return by term ``[T]`` what of a model's gap to the base model a variant closes, and the gap.

    Args:
        without: ``{model: {variant: [T]}}`` of :func:`lightning_steer.studies.fidelity.verdict.without_anisotropy`.
        model: ``tuned``, or ``narrow`` for the mean over the trainings.
        variant: way of steering.
    """

    def take(name: str) -> NDArray:
        return np.mean([without[one][name] for one in (NARROW if model == "narrow" else (model,))], axis=0)

    base = {name: np.array(column) for name, column in without["base"].items()}
    gap = base["plain"] - take("plain")
    return gap - (base[variant] - take(variant)), gap


def _anisotropy(parts: Parts) -> dict[str, Result]:
    without = {name.removeprefix("verdict-"): part["without"] for name, part in parts.items() if "without" in part}
    return {
        f"{model}, {variant}": share_within(*explained(without, model, variant), LIMIT, len(ANISOTROPY.contrasts))
        for model in ("tuned", "narrow")
        for variant in EXPLAINERS
    }


def control(part: Mapping[str, Any]) -> dict[str, Result]:
    """Return the contrasts of a model with the planted pattern."""
    return {
        f"planted, {kind}s": above(rows(part, "own", kind, "pattern_nats"), 0, len(BIAS_TYPES)) for kind in BIAS_TYPES
    }


def results(parts: Parts) -> dict[str, dict[str, Result]]:
    """Return ``{question: {contrast: result}}`` of every declared contrast."""
    own, borrowed = best(parts, "own"), best(parts, "base")
    return {
        NATS.name: _patterns(parts, "pattern_nats", NATS),
        SHARES.name: _patterns(parts, "pattern_shares", SHARES),
        CONTROL.name: control(parts["verdict-planted"]),
        LOST.name: _lost(parts),
        DOSE.name: {c.name: above(u, 0, 2) for c, u in zip(DOSE.contrasts, (own, borrowed - own), strict=True)},
        ANISOTROPY.name: _anisotropy(parts),
    }
