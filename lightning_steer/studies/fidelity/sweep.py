"""One arm and bias type: every layer at every strength, with random directions, in one pass for each layer."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.metrics.columns import estimate_columns
from lightning_steer.metrics.drift import TextDrift, drift_estimates, kl_mean
from lightning_steer.metrics.stereoset import ANTI, STEREOTYPE, association, choices
from lightning_steer.metrics.stereoset_effect import StereoSetEffect, effect_estimates, effect_rows
from lightning_steer.statistics.estimate import BY_DEFINITION, Estimate
from lightning_steer.statistics.kinds import Kind, Mean
from lightning_steer.studies.fidelity.settings import LAYER, Arm, StudyScale
from lightning_steer.studies.fidelity.subject import Subject, added, reference_texts

AIMS = {"suppress": (STEREOTYPE, ANTI), "promote": (ANTI, STEREOTYPE)}
OF_DRAWS = (
    *("p_stereotype", "p_anti", "p_unrelated", "intended", "opposed", "collateral", "fidelity"),
    *("margin_change", "pattern_shares", "pattern_nats"),
)
"""Measures of random directions that are stored, as means over examples."""
PATTERN: dict[str, Kind] = {"pattern_shares": Mean(-2, 2), "pattern_nats": Mean()}
"""Kinds of the study's own columns."""
UNSTEERED = {
    **StereoSetEffect.by_definition,
    **dict.fromkeys((*PATTERN, "ss_change", "lms_change", "icat_change", "icat_lms_part", "icat_ss_part"), 0.0),
}
"""Moves and changes at strength 0, known by definition."""
UNSTEERED_DRIFT = {
    "reference_kl": 0.0,
    "reference_probability_lost": 0.0,
    "reference_kl_p95": 0.0,
    "perplexity_ratio": 1.0,
}


def rows_of(base: Tensor, scores: Tensor, aim: str) -> dict[str, Tensor]:
    """Return ``{name: [C, n]}`` of :func:`effect_rows`, and how much more unrelated sentences fell than stereotypes.

    ``pattern_shares`` is the change of choosing the stereotype less that of choosing the unrelated sentence,
    ``pattern_nats`` the same of the scores. Both are above 0 where steering mainly suppresses unrelated sentences.
    """
    rows = effect_rows(base, scores, *AIMS[aim])
    before = choices(base)
    rows["pattern_shares"] = (rows["p_stereotype"] - before[:, 0]) - (rows["p_unrelated"] - before[:, 2])
    rows["pattern_nats"] = rows["stereotype_change"] - rows["unrelated_change"]
    return rows


def along(base: Tensor, scores: Tensor, strengths: Sequence[float]) -> dict[str, Tensor]:
    """Return ``{name: [n, S]}``; negative strengths are meant to promote stereotypes, the others to suppress them."""
    parts = [rows_of(base, scores[i : i + 1], "promote" if c < 0 else "suppress") for i, c in enumerate(strengths)]
    return {name: torch.cat([part[name] for part in parts]).T for name in parts[0]}


def estimates_along(rows: Mapping[str, Tensor], term: Tensor, strengths: Sequence[float]) -> dict[str, list[Estimate]]:
    """Return S estimates of each column of :func:`along` and of SS, LMS and ICAT, with intervals over ``term [n]``."""
    effect_columns = {name: column for name, column in rows.items() if name not in PATTERN}
    estimates = effect_estimates(effect_columns, term)
    estimates |= estimate_columns({name: rows[name] for name in PATTERN if name in rows}, PATTERN, term)
    return with_unsteered(estimates, strengths, UNSTEERED)


def with_unsteered(
    estimates: Mapping[str, Sequence[Estimate]], strengths: Sequence[float], known: Mapping[str, float]
) -> dict[str, list[Estimate]]:
    """Return estimates along strengths; at strength 0 they get their ``known`` values and no interval."""
    return {
        name: [
            e._replace(value=known[name], low=math.nan, high=math.nan, how=BY_DEFINITION)
            if c == 0 and name in known
            else e
            for c, e in zip(strengths, column, strict=True)
        ]
        for name, column in estimates.items()
    }


def plain(estimates: Sequence[Estimate]) -> list[list[Any]]:
    """Return each estimate as a list of its fields; in a part, values that are not finite become null."""
    return [list(e) for e in estimates]


def of_draws(base: Tensor, scores: Tensor, term: Tensor, draws: int) -> dict[str, dict[str, Any]]:
    """Return ``{aim: {measure: [draws][P]}}`` of random directions ``scores [draws * P, n, 3]``."""
    official = association(scores.transpose(0, 1), term)
    by_aim = {}
    for aim in AIMS:
        rows = rows_of(base, scores, aim)
        columns = {name: rows[name].mean(1) for name in OF_DRAWS}
        columns |= {"ss": official.ss, "lms": official.lms, "icat": official.icat}
        by_aim[aim] = {name: column.unflatten(0, (draws, -1)).tolist() for name, column in columns.items()}
    return by_aim


def drift_of(drift: TextDrift, strengths: Sequence[float]) -> dict[str, list[list[Any]]]:
    """Return the KL of the next token, its mean and its tail, and the ratio of perplexities, over texts."""
    estimates = with_unsteered(drift_estimates(drift), strengths, UNSTEERED_DRIFT)
    return {name: plain(column) for name, column in estimates.items()}


@torch.no_grad()
def run(arm: Arm, models: Mapping[str, Path], kind: str, scale: StudyScale) -> dict[str, Any]:
    """Return estimates of every layer and strength, and of every random direction."""
    subject = Subject(arm, models, kind)
    llm, test, select = subject.llm, subject.test, subject.select
    empty = torch.zeros(1, 1)
    base, chosen_base = added(llm, test.contrasts, None, empty)[0], added(llm, select.contrasts, None, empty)[0]
    layers = range(len(llm.sites)) if scale.layers is None else scale.layers
    result: dict[str, Any] = {
        "arm": arm.name,
        "kind": kind,
        "strengths": list(scale.strengths),
        "layers": list(layers),
        "terms": len(test.term.unique()),
        "examples": len(base),
        **{name: {} for name in ("steered", "random", "select", "drift", "random_drift", "norms")},
    }
    texts, stream = reference_texts(arm.chat), llm.activations(subject.fit.contrasts[0].negative)
    for layer in layers:
        site, key = llm.sites[layer], str(layer)
        vector = subject.vectors[site]
        strengths = torch.tensor(scale.strengths)
        shifts = subject.shifts(site, scale.strengths, scale.draws)
        scores = added(llm, test.contrasts, site, shifts)
        vector_scores, random_scores = scores[: len(strengths)], scores[len(strengths) :]
        estimates = estimates_along(along(base, vector_scores, scale.strengths), test.term, scale.strengths)
        result["steered"][key] = {name: plain(column) for name, column in estimates.items()}
        result["random"][key] = of_draws(base, random_scores, test.term, scale.draws)
        selection_scores = added(llm, select.contrasts, site, shifts[: len(strengths)])
        result["select"][key] = along(chosen_base, selection_scores, scale.strengths)["fidelity"].mean(0).tolist()
        result["norms"][key] = {"vector": float(vector.norm()), "stream": float(stream[site].norm(dim=-1).mean())}
        tried = shifts if layer == LAYER else shifts[: len(strengths)]
        drift = llm.drift(texts, {site: lambda h, v=tried: h + v[:, None, None]}, len(tried))
        vector_drift = TextDrift(drift.kl[: len(strengths)], drift.base, drift.steered[: len(strengths)], drift.tokens)
        result["drift"][key] = drift_of(vector_drift, scale.strengths)
        if layer == LAYER:
            random_kl = torch.stack([kl_mean(kl) for kl in drift.kl[len(strengths) :]])
            result["random_drift"][key] = {"kl": random_kl.unflatten(0, (scale.draws, -1)).tolist()}
    return result
