"""Does anisotropy explain what steering moves besides? Measured, and taken away to see what changes.

The hypothesis (Raedler et al. 2025): fine-tuning makes the residual stream more anisotropic, and therefore steering
suppresses what is unrelated. If so, steering without the common mean, or without the first principal component, should
do better in the fine-tuned model, and come nearer to the base model. Both are taken out of the vector (which keeps its
length), and out of the stream itself (which then has an unsteered baseline of its own); a random direction taken out of
the stream is the control. A plainer explanation is tried beside them: that the fine-tuned model's vector is shorter.
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
from lightning_steer.studies.fidelity.settings import BIAS_TYPES, Arm, Scale
from lightning_steer.studies.fidelity.subject import Subject, directions, neutral
from lightning_steer.studies.fidelity.sweep import PATTERN, plain, rows_of

MEASURES: dict[Callable[..., Tensor], tuple[float, float | None]] = {
    anisotropy.cosine: (-1, 1),
    anisotropy.centred_cosine: (-1, 1),
    anisotropy.participation_ratio: (1, None),
    anisotropy.top_share: (0, 1),
}
"""With the least and the largest that each can be; None: as many as there are dimensions."""
GROUPS = 40
"""Groups of texts that the intervals of the measures rest on."""
COEFFICIENTS = (-1.0, 1.0)
PLAIN, LENGTH, CONTROL = "plain", "vector as long as base's", "stream without random"
VECTORS = (PLAIN, LENGTH, "vector without mean", "vector without top")
VARIANTS = (*VECTORS, "stream without mean", "stream without top", CONTROL)
OUTCOMES = ("fidelity", "intended", "collateral", "pattern_shares", "pattern_nats")
OUTCOME_KINDS: dict[str, Kind] = {name: (KINDS | PATTERN)[name] for name in OUTCOMES}
CONTROLS = 8
"""Random directions that are taken out of the stream."""


def difference(kind: Kind) -> Mean:
    """Return what the difference of two columns of a kind of mean estimates: its range is twice as wide, about 0."""
    if not isinstance(kind, Mean):
        raise TypeError(f"a difference is taken of two means, not of {kind}")
    return Mean(kind.low - kind.high, kind.high - kind.low)


CHANGE = {name: difference(kind) for name, kind in OUTCOME_KINDS.items()}
"""What differences from plain steering estimate."""


@torch.no_grad()
def states(llm: LLM, texts: list[str]) -> tuple[dict[str, Tensor], Tensor]:
    """``{site: [n, d]}`` of every token but the first of each text, and which text it is of, ``[n]``."""
    found: dict[str, list[Tensor]] = {site: [] for site in llm.sites}
    of_text = []
    for part in batches(llm.rows([MultipleChoice(text) for text in texts]), llm.tokens_per_batch):
        batch = collate(part, llm.pad, llm.model.dtype, llm.device)
        with capture(llm.model, llm.sites) as seen:
            llm.model.base_model(input_ids=batch.ids, use_cache=False)
        kept = batch.index > 0
        of_text.append(torch.tensor([row.example for row in part])[:, None].expand(kept.shape)[kept])
        for site, h in seen.items():
            found[site].append(h[kept])
    return {site: torch.cat(rows) for site, rows in found.items()}, torch.cat(of_text)


def shape(h: Tensor, text: Tensor) -> dict[str, Estimate]:
    """Return every measure of the states ``[n, d]`` at one site, with its interval over groups of texts ``[n]``."""
    left = torch.from_numpy(leave_one_out(text % GROUPS))
    found = {}
    for measure, (low, high) in MEASURES.items():
        values = as_numbers(measure(h)[None]), as_numbers(measure(h, left)[:, None])
        most = h.shape[1] if high is None else high
        found[measure.__name__] = estimates_of_left_out(*values, len(h), len(left), low, most, debias=True)[0]
    return found


def axes(h: Tensor) -> dict[str, Tensor]:
    """Unit vectors: the common mean, and the first principal component of what is left without it."""
    h = h.double()
    centred = h - h.mean(0)
    top = torch.linalg.eigh(centred.T @ centred)[1][:, -1]
    return {"mean": anisotropy.unit(h.mean(0)).float(), "top": top.float()}


def without(vector: Tensor, axis: Tensor) -> Tensor:
    """The vector less its part along a unit vector, at its old length."""
    rest = vector - (vector @ axis) * axis
    return rest * vector.norm() / rest.norm()


def steered(
    subject: Subject, site: str, axis: Mapping[str, Tensor], c: float, length: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """``{variant: (its own unsteered scores [K, n, 3], steered ones)}``, K above 1 for the control only.

    Args:
        subject: model and vector.
        site: where it is steered.
        axis: what :func:`axes` has found there.
        c: strength.
        length: of the base model's vector.
    """
    v, zero = subject.vectors[site], torch.zeros(len(subject.vectors[site]))
    shifts = [c * one for one in (v, v * length / v.norm(), without(v, axis["mean"]), without(v, axis["top"]))]
    removed = [zero] * len(shifts)
    for one in (zero, axis["mean"], axis["top"], *directions(CONTROLS, len(v), 1.0, seed=1)):
        removed += [one, one]
        shifts += [zero, c * v]
    axis_of, shift = torch.stack(removed), torch.stack(shifts)

    def function(h: Tensor) -> Tensor:
        h = h.expand(len(shift), -1, -1, -1)
        along = torch.einsum("cbtd,cd->cbt", h, axis_of)
        return h - along.unsqueeze(-1) * axis_of[:, None, None] + shift[:, None, None]

    scores = subject.llm.scores(list(subject.test.contrasts.questions), {site: function}, len(shift))
    vectors, pairs = scores[: len(VECTORS)], scores[len(VECTORS) :].unflatten(0, (-1, 2))
    found = {name: (pairs[:1, 0], one[None]) for name, one in zip(VECTORS, vectors, strict=True)}
    found |= {name: (pairs[i : i + 1, 0], pairs[i : i + 1, 1]) for i, name in ((1, VARIANTS[4]), (2, VARIANTS[5]))}
    found[CONTROL] = pairs[3:, 0], pairs[3:, 1]
    return found


def outcome(base: Tensor, scores: Tensor, aim: str) -> dict[str, Tensor]:
    """``{measure: [n]}``, the mean over the K pairs."""
    every = [rows_of(one, other[None], aim) for one, other in zip(base, scores, strict=True)]
    return {name: torch.stack([rows[name][0] for rows in every]).mean(0) for name in OUTCOMES}


@torch.no_grad()
def run(models: Mapping[str, Path], scale: Scale) -> dict[str, Any]:
    """Anisotropy of every model and layer, what steering does without it, and how much nearer to base that comes."""
    found: dict[str, Any] = {"anisotropy": {}, "causal": {}, "gaps": {}}
    rows: dict[tuple[str, str, str], dict[str, Tensor]] = {}
    terms, longest = torch.zeros(0), dict[tuple[str, str], Tensor]()
    for model in sorted(models, key=lambda name: name != "base"):
        subjects = [Subject(Arm(model, model, model), models, kind) for kind in BIAS_TYPES]
        llm = subjects[0].llm
        terms = torch.cat([subject.test.term + 1000 * i for i, subject in enumerate(subjects)])
        if model == "base":
            longest = {(s.kind, site): v.norm() for s in subjects for site, v in s.vectors.items()}
        pairs = [subject.fit.contrasts[0] for subject in subjects]
        texts = [q.prompt + q.options[0] for batch in pairs for q in (*batch.negative, *batch.positive)] + neutral(
            False
        )
        h, text = states(llm, texts)
        layers = range(len(llm.sites)) if scale.layers is None else scale.layers
        found["anisotropy"][model] = {str(layer): shape(h[llm.sites[layer]], text) for layer in layers}
        found["causal"][model] = {}
        for layer in layers:
            site, axis = llm.sites[layer], axes(h[llm.sites[layer]])
            for c in COEFFICIENTS:
                aim = "suppress" if c > 0 else "promote"
                parts = [steered(subject, site, axis, c, longest[subject.kind, site]) for subject in subjects]
                for variant in VARIANTS:
                    both = [outcome(*part[variant], aim) for part in parts]
                    rows[f"{model}/{layer}", f"{c:g}", variant] = {
                        name: torch.cat([one[name] for one in both]) for name in OUTCOMES
                    }
                found["causal"][model][f"{layer}/{c:g}"] = {
                    "cosines": {
                        name: [float(torch.cosine_similarity(s.vectors[site], u, 0)) for s in subjects]
                        for name, u in axis.items()
                    },
                    **effects(rows, f"{model}/{layer}", f"{c:g}", terms),
                }
    for model in models:
        if model != "base":
            for place in found["causal"][model]:
                layer, c = place.split("/")
                found["gaps"][f"{model}/{place}"] = gap(rows, model, layer, c, terms)
    return found


def effects(rows: Mapping[Any, dict[str, Tensor]], place: str, c: str, terms: Tensor) -> dict[str, Any]:
    """Every outcome of each variant, and its difference from plain steering, over the same examples."""
    found: dict[str, Any] = {"outcomes": {}, "differences": {}}
    unchanged = rows[place, c, PLAIN]
    for variant in VARIANTS:
        these = rows[place, c, variant]
        values = estimate_columns(these, OUTCOME_KINDS, terms)
        found["outcomes"][variant] = {name: plain(column)[0] for name, column in values.items()}
        if variant != PLAIN:
            change = {name: column - unchanged[name] for name, column in these.items()}
            found["differences"][variant] = {
                name: plain(column)[0] for name, column in estimate_columns(change, CHANGE, terms).items()
            }
    return found


def gap(rows: Mapping[Any, dict[str, Tensor]], model: str, layer: str, c: str, terms: Tensor) -> dict[str, Any]:
    """How much higher the base model's fidelity is, and how much of that each variant takes away."""
    found: dict[str, Any] = {}
    for name in ("fidelity", "pattern_nats"):
        columns = {
            variant: rows[f"base/{layer}", c, variant][name] - rows[f"{model}/{layer}", c, variant][name]
            for variant in VARIANTS
        }
        kinds: dict[str, Kind] = dict.fromkeys(VARIANTS, CHANGE[name])
        twice: dict[str, Kind] = dict.fromkeys(VARIANTS, difference(CHANGE[name]))
        explained = {v: columns[PLAIN] - column for v, column in columns.items() if v != PLAIN}
        found[name] = {
            "gap": {v: plain(e)[0] for v, e in estimate_columns(columns, kinds, terms).items()},
            "explained": {v: plain(e)[0] for v, e in estimate_columns(explained, twice, terms).items()},
        }
    return found
