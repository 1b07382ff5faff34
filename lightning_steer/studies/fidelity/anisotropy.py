"""Does anisotropy explain steering's side effects? It is measured, and removed to see what changes.

The hypothesis (Raedler et al. 2025): fine-tuning makes the residual stream more anisotropic, so steering
suppresses unrelated sentences. If so, steering without the common mean, or without the first principal component,
should work better in the fine-tuned model and be closer to the base model. Both are removed from the vector (which
keeps its length), and from the stream itself (which then has its own unsteered baseline). A random direction removed
from the stream is the control. A simpler explanation is tested as well: that the fine-tuned model's vector is shorter.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.hooks import capture
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice, batches, collate
from lightning_steer.metrics import anisotropy
from lightning_steer.metrics.columns import as_numbers, estimate_columns
from lightning_steer.metrics.stereoset_effect import KINDS
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.jackknife import estimates_of_left_out, leave_one_out
from lightning_steer.statistics.kinds import Kind, Mean
from lightning_steer.studies.fidelity.settings import BIAS_TYPES, Arm, StudyScale
from lightning_steer.studies.fidelity.subject import Subject, directions, reference_texts
from lightning_steer.studies.fidelity.sweep import PATTERN, plain, rows_of

MEASURES: dict[Callable[..., Tensor], tuple[float, float | None]] = {
    anisotropy.cosine: (-1, 1),
    anisotropy.centred_cosine: (-1, 1),
    anisotropy.participation_ratio: (1, None),
    anisotropy.top_share: (0, 1),
}
"""Each measure with its smallest and largest possible value; None stands for the number of dimensions."""
GROUPS = 40
"""Number of groups of texts that the intervals of the measures rest on."""
COEFFICIENTS = (-1.0, 1.0)
PLAIN, LENGTH, CONTROL = "plain", "vector as long as base's", "stream without random"
VECTORS = (PLAIN, LENGTH, "vector without mean", "vector without top")
VARIANTS = (*VECTORS, "stream without mean", "stream without top", CONTROL)
OUTCOMES = ("fidelity", "intended", "collateral", "pattern_shares", "pattern_nats")
OUTCOME_KINDS: dict[str, Kind] = {name: (KINDS | PATTERN)[name] for name in OUTCOMES}
CONTROLS = 8
"""Number of random directions that are removed from the stream."""


def difference(kind: Kind) -> Mean:
    """Return the kind of the difference of two columns of a kind of mean: its range is twice as wide, around 0."""
    if not isinstance(kind, Mean):
        raise TypeError(f"a difference is taken of two means, not of {kind}")
    return Mean(kind.low - kind.high, kind.high - kind.low)


CHANGE = {name: difference(kind) for name, kind in OUTCOME_KINDS.items()}
"""Kinds of the differences from plain steering."""


@torch.no_grad()
def states(llm: LLM, texts: list[str]) -> tuple[dict[str, Tensor], Tensor]:
    """Return the states ``{site: [n, d]}`` of all tokens but each text's first, and their texts' indices ``[n]``."""
    by_site: dict[str, list[Tensor]] = {site: [] for site in llm.sites}
    text_index = []
    for chunk in batches(llm.rows([MultipleChoice(text) for text in texts]), llm.tokens_per_batch):
        batch = collate(chunk, llm.pad, llm.model.dtype, llm.device)
        with capture(llm.model, llm.sites) as captured:
            llm.model.base_model(input_ids=batch.ids, use_cache=False)
        mask = batch.index > 0
        text_index.append(torch.tensor([row.example for row in chunk])[:, None].expand(mask.shape)[mask])
        for site, h in captured.items():
            by_site[site].append(h[mask])
    return {site: torch.cat(rows) for site, rows in by_site.items()}, torch.cat(text_index)


def shape(h: Tensor, text: Tensor) -> dict[str, Estimate]:
    """Return every measure of the states ``[n, d]`` at one site, with its interval over groups of texts ``[n]``."""
    weights = torch.from_numpy(leave_one_out(text % GROUPS))
    estimates = {}
    for measure, (low, high) in MEASURES.items():
        values = as_numbers(measure(h)[None]), as_numbers(measure(h, weights)[:, None])
        largest = h.shape[1] if high is None else high
        estimates[measure.__name__] = estimates_of_left_out(*values, len(h), len(weights), low, largest, debias=True)[0]
    return estimates


def axes(h: Tensor) -> dict[str, Tensor]:
    """Return unit vectors: the common mean, and the first principal component of the centred states."""
    h = h.double()
    centred = h - h.mean(0)
    top = torch.linalg.eigh(centred.T @ centred)[1][:, -1]
    return {"mean": anisotropy.unit(h.mean(0)).float(), "top": top.float()}


def without(vector: Tensor, axis: Tensor) -> Tensor:
    """Remove a vector's component along a unit vector and restore its length."""
    remainder = vector - (vector @ axis) * axis
    return remainder * vector.norm() / remainder.norm()


def steered(
    subject: Subject, site: str, axis: Mapping[str, Tensor], c: float, length: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return ``{variant: (its unsteered scores [K, n, 3], its steered scores)}``; K is above 1 only for the control.

    Args:
        subject: model and vector.
        site: the steered site.
        axis: result of :func:`axes` at the site.
        c: strength.
        length: length of the base model's vector.
    """
    v, zero = subject.vectors[site], torch.zeros(len(subject.vectors[site]))
    shifts = [c * values for values in (v, v * length / v.norm(), without(v, axis["mean"]), without(v, axis["top"]))]
    removed = [zero] * len(shifts)
    for direction in (zero, axis["mean"], axis["top"], *directions(CONTROLS, len(v), 1.0, seed=1)):
        removed += [direction, direction]
        shifts += [zero, c * v]
    axis_of, shift = torch.stack(removed), torch.stack(shifts)

    def function(h: Tensor) -> Tensor:
        h = h.expand(len(shift), -1, -1, -1)
        along = torch.einsum("cbtd,cd->cbt", h, axis_of)
        return h - along.unsqueeze(-1) * axis_of[:, None, None] + shift[:, None, None]

    scores = subject.llm.scores(list(subject.test.contrasts.questions), {site: function}, len(shift))
    vectors, pairs = scores[: len(VECTORS)], scores[len(VECTORS) :].unflatten(0, (-1, 2))
    by_variant = {name: (pairs[:1, 0], values[None]) for name, values in zip(VECTORS, vectors, strict=True)}
    by_variant |= {name: (pairs[i : i + 1, 0], pairs[i : i + 1, 1]) for i, name in ((1, VARIANTS[4]), (2, VARIANTS[5]))}
    by_variant[CONTROL] = pairs[3:, 0], pairs[3:, 1]
    return by_variant


def outcome(base: Tensor, scores: Tensor, aim: str) -> dict[str, Tensor]:
    """Return ``{measure: [n]}``, the mean over the K pairs."""
    rows_by_pair = [rows_of(before, after[None], aim) for before, after in zip(base, scores, strict=True)]
    return {name: torch.stack([rows[name][0] for rows in rows_by_pair]).mean(0) for name in OUTCOMES}


@torch.no_grad()
def run(models: Mapping[str, Path], scale: StudyScale) -> dict[str, Any]:
    """Measure anisotropy at every model and layer, steering without it, and the remaining gap to the base model."""
    results: dict[str, Any] = {"anisotropy": {}, "causal": {}, "gaps": {}}
    rows: dict[tuple[str, str, str], dict[str, Tensor]] = {}
    terms, base_vectors = torch.zeros(0), dict[tuple[str, str], Tensor]()
    for model in sorted(models, key=lambda name: name != "base"):
        subjects = [Subject(Arm(model, model, model), models, kind) for kind in BIAS_TYPES]
        llm = subjects[0].llm
        terms = torch.cat([subject.test.term + 1000 * i for i, subject in enumerate(subjects)])
        if model == "base":
            base_vectors = {(s.kind, site): v.norm() for s in subjects for site, v in s.vectors.items()}
        pairs = [subject.fit.contrasts[0] for subject in subjects]
        texts = [
            q.prompt + q.choices[0] for batch in pairs for q in (*batch.negative, *batch.positive)
        ] + reference_texts(False)
        h, text = states(llm, texts)
        layers = range(len(llm.sites)) if scale.layers is None else scale.layers
        results["anisotropy"][model] = {str(layer): shape(h[llm.sites[layer]], text) for layer in layers}
        results["causal"][model] = {}
        for layer in layers:
            site, axis = llm.sites[layer], axes(h[llm.sites[layer]])
            for c in COEFFICIENTS:
                aim = "suppress" if c > 0 else "promote"
                parts = [steered(subject, site, axis, c, base_vectors[subject.kind, site]) for subject in subjects]
                for variant in VARIANTS:
                    outcomes = [outcome(*variants[variant], aim) for variants in parts]
                    rows[f"{model}/{layer}", f"{c:g}", variant] = {
                        name: torch.cat([columns[name] for columns in outcomes]) for name in OUTCOMES
                    }
                results["causal"][model][f"{layer}/{c:g}"] = {
                    "cosines": {
                        name: [float(torch.cosine_similarity(s.vectors[site], u, 0)) for s in subjects]
                        for name, u in axis.items()
                    },
                    **effects(rows, f"{model}/{layer}", f"{c:g}", terms),
                }
    for model in models:
        if model != "base":
            for setting in results["causal"][model]:
                layer, c = setting.split("/")
                results["gaps"][f"{model}/{setting}"] = gap(rows, model, layer, c, terms)
    return results


def effects(rows: Mapping[Any, dict[str, Tensor]], place: str, c: str, terms: Tensor) -> dict[str, Any]:
    """Return each variant's outcomes and their differences from plain steering on the same examples."""
    results: dict[str, Any] = {"outcomes": {}, "differences": {}}
    plain_rows = rows[place, c, PLAIN]
    for variant in VARIANTS:
        variant_rows = rows[place, c, variant]
        values = estimate_columns(variant_rows, OUTCOME_KINDS, terms)
        results["outcomes"][variant] = {name: plain(column)[0] for name, column in values.items()}
        if variant != PLAIN:
            change = {name: column - plain_rows[name] for name, column in variant_rows.items()}
            results["differences"][variant] = {
                name: plain(column)[0] for name, column in estimate_columns(change, CHANGE, terms).items()
            }
    return results


def gap(rows: Mapping[Any, dict[str, Tensor]], model: str, layer: str, c: str, terms: Tensor) -> dict[str, Any]:
    """Return how much higher the base model's fidelity is, and how much of this gap each variant explains."""
    gaps: dict[str, Any] = {}
    for name in ("fidelity", "pattern_nats"):
        columns = {
            variant: rows[f"base/{layer}", c, variant][name] - rows[f"{model}/{layer}", c, variant][name]
            for variant in VARIANTS
        }
        kinds: dict[str, Kind] = dict.fromkeys(VARIANTS, CHANGE[name])
        doubled: dict[str, Kind] = dict.fromkeys(VARIANTS, difference(CHANGE[name]))
        explained = {v: columns[PLAIN] - column for v, column in columns.items() if v != PLAIN}
        gaps[name] = {
            "gap": {v: plain(e)[0] for v, e in estimate_columns(columns, kinds, terms).items()},
            "explained": {v: plain(e)[0] for v, e in estimate_columns(explained, doubled, terms).items()},
        }
    return gaps
