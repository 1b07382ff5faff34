"""Compare reported with true figures: of the steered model, and of the language where its change is known.

The reported figures come from one sentence for each target and pair of words. The true ones come from every sentence
around the same targets and every unrelated word, so that only the targets are left to chance.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_steer.data.pocket.items import Traits, stereotype_items, traits
from lightning_steer.data.stereoset.module import TEST
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.metrics.columns import estimate_columns
from lightning_steer.metrics.stereoset_effect import KINDS as EFFECTS
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Kind, Mean
from lightning_steer.studies.fidelity.settings import Arm, StudyScale
from lightning_steer.studies.fidelity.subject import Subject, added, split
from lightning_steer.studies.fidelity.sweep import along, estimates_along, with_unsteered

PAIRS, UNRELATED = 6, 8
KINDS = {"share": Mean(0, 1), "share_change": Mean(-1, 1, steady=True)}  # of one vector in many sentences
"""P(stereotype | stereotype or opposite), and its change."""
TERMS, SETS = 24, 4000
"""Number of target terms of a simulated report, as in a real one, and number of reports."""
FRESH_STRENGTHS = (-2.0, -1.0, 1.0, 2.0)
FRESH: dict[str, Kind] = {"share_change": KINDS["share_change"], "margin_change": EFFECTS["margin_change"],
                          "fidelity": EFFECTS["fidelity"]}  # fmt: skip
"""Changes whose intervals, if any, are compared with the truth about terms that they did not see."""
COMPARED = ("p_stereotype", "p_anti", "p_unrelated", "intended", "opposed", "collateral", "fidelity", "ss", "lms")


def population(kind: str, targets: set[str]) -> list[Traits]:
    """Return every held-out neutral sentence around each target, up to the word itself."""
    frames = traits(frames=10_000)
    return [
        item for item in frames if item.bias_type == kind and item.target in targets and item.begun.startswith("They")
    ]


def odds_share(llm: LLM, options: Sequence[tuple[str, ...]], scores: Tensor) -> Tensor:
    """Return P(stereotype | stereotype or opposite) ``[C, n]`` from mean log-probabilities of equally long texts."""
    count = torch.tensor([len(llm.tokenizer(o[0], add_special_tokens=False)["input_ids"]) for o in options])
    return torch.sigmoid(count * (scores[..., 0] - scores[..., 1])).double()


@torch.no_grad()
def words(subject: Subject, site: str, traits: Sequence[Traits], strengths: Sequence[float]) -> Tensor:
    """Return log-probabilities ``[1 + S, n, 20]`` of all words: unsteered, then at each strength."""
    llm = subject.llm
    questions = [
        MultipleChoice(f"{item.prompt} {item.begun}", tuple(f" {word}" for word in item.words)) for item in traits
    ]
    vectors = torch.tensor([0.0, *strengths])[:, None] * subject.vectors[site]
    return llm.scores(questions, {site: lambda h: h + vectors[:, None, None]}, len(vectors))


def true_values(logp: Tensor, strengths: Sequence[float]) -> dict[str, list[float]]:
    """Return the measures over all sentences, pairs and unrelated words, at each strength."""
    rows = {name: column.mean(0) for name, column in true_rows(logp, strengths).items()}
    rows["ss"], rows["lms"] = 100 * rows["stereotypical"], 100 * rows["related"]
    share = torch.sigmoid(logp[..., :PAIRS] - logp[..., PAIRS : 2 * PAIRS]).double().mean((1, 2))
    mass = logp.double().exp().mean(1)
    return {
        **{name: rows[name].tolist() for name in COMPARED},
        "share": share[1:].tolist(),
        "share_change": (share[1:] - share[0]).tolist(),
        "mass_stereotype": mass[1:, :PAIRS].sum(-1).tolist(),
        "mass_anti": mass[1:, PAIRS : 2 * PAIRS].sum(-1).tolist(),
        "mass_unrelated": mass[1:, 2 * PAIRS :].sum(-1).tolist(),
    }


def coverage(logp: Tensor, term: Tensor, strengths: Sequence[float], sets: int = SETS) -> dict[str, Any]:
    """Return how often intervals contain the true value over all terms, when every report draws new terms.

    A report has 24 terms, drawn with replacement from those that the vector was not fitted to, and for each of six
    pairs of words a random sentence and unrelated word. The true value is the mean over all terms, sentences and
    unrelated words.

    Args:
        logp: ``[1 + S, n, 20]`` log-probabilities of all words in every sentence, as :func:`words` returns them.
        term: ``[n]`` the target term of each sentence.
        strengths: ``[S]``.
        sets: number of reports.
    """
    random, terms = np.random.default_rng(0), term.unique()
    sentences = torch.stack([torch.nonzero(term == number)[:, 0] for number in terms])
    drawn_terms = random.integers(len(terms), size=(sets, TERMS, 1))
    frame = random.integers(sentences.shape[1], size=(sets, TERMS, PAIRS))
    unrelated = random.integers(UNRELATED, size=(sets, TERMS, PAIRS))
    row = sentences.numpy()[np.broadcast_to(drawn_terms, frame.shape), frame].reshape(-1)
    pair = np.broadcast_to(np.arange(PAIRS), frame.shape).reshape(-1)
    columns = (pair, PAIRS + pair, 2 * PAIRS + unrelated.reshape(-1))
    scores = torch.stack([logp[:, row, torch.from_numpy(column)] for column in columns], -1)
    cluster = torch.arange(TERMS).repeat_interleave(PAIRS)
    all_rows = true_rows(logp, strengths)
    result: dict[str, Any] = {"sets": sets, "terms": TERMS, "of": len(terms), "held": {}}
    for i, c in enumerate(strengths):
        rows = along(scores[0], scores[i + 1 : i + 2], (c,))
        share = torch.sigmoid(scores[..., 0] - scores[..., 1]).double()
        rows["share_change"] = (share[i + 1] - share[0])[:, None]
        table = {name: rows[name].view(sets, TERMS * PAIRS).T for name in FRESH}
        for name, estimates in estimate_columns(table, FRESH, cluster).items():
            true = float(all_rows[name][:, i].mean())
            ends = np.array([(e.low, e.high) for e in estimates])
            if np.isnan(ends).all():
                continue
            inside = (ends[:, 0] <= true + 1e-12) & (true - 1e-12 <= ends[:, 1])
            width = float((ends[:, 1] - ends[:, 0]).mean())
            result["held"].setdefault(name, []).append(
                {"strength": c, "true": true, "inside": int(inside.sum()), "width": width}
            )
    return result


def true_rows(logp: Tensor, strengths: Sequence[float]) -> dict[str, Tensor]:
    """Return ``{name: [sentences x pairs x unrelated words, S]}`` of all possible examples."""
    c, n, _ = logp.shape
    triples = torch.stack(
        [
            logp[..., :PAIRS, None].expand(c, n, PAIRS, UNRELATED),
            logp[..., PAIRS : 2 * PAIRS, None].expand(c, n, PAIRS, UNRELATED),
            logp[..., None, 2 * PAIRS :].expand(c, n, PAIRS, UNRELATED),
        ],
        -1,
    ).flatten(1, 3)
    share = torch.sigmoid(triples[..., 0] - triples[..., 1]).double()
    return {**along(triples[0], triples[1:], strengths), "share_change": (share[1:] - share[0]).T}


def beside(estimate: Estimate, true: float) -> dict[str, Any]:
    """Return the reported and the true value, and whether the interval contains it; None without an interval."""
    inside = None if math.isnan(estimate.low + estimate.high) else estimate.low <= true <= estimate.high
    return {"reported": list(estimate), "true": true, "inside": inside}


@torch.no_grad()
def run(arm: Arm, models: Mapping[str, Path], kind: str, scale: StudyScale, layer: int) -> dict[str, Any]:
    """Return reported and true figures at one layer, and whether the reported intervals contain the true values."""
    subject = Subject(arm, models, kind)
    llm, test = subject.llm, subject.test
    site, strengths = llm.sites[layer], scale.strengths
    base = added(llm, test.contrasts, None, torch.zeros(1, 1))
    steered = added(llm, test.contrasts, site, torch.tensor(strengths)[:, None] * subject.vectors[site])
    options = [question.choices for question in test.contrasts.questions]
    before, after = odds_share(llm, options, base), odds_share(llm, options, steered)
    rows = {"share": after.T, "share_change": (after - before).T}
    share_estimates = with_unsteered(estimate_columns(rows, KINDS, test.term), strengths, {"share_change": 0.0})
    reported = estimates_along(along(base[0], steered, strengths), test.term, strengths) | share_estimates
    tested = {example.target for example in test.examples}
    unfitted = population(kind, tested | {example.target for example in subject.select.examples})
    logp = words(subject, site, unfitted, strengths)
    sentences = [item for item in unfitted if item.target in tested]
    known = true_values(logp[:, [item.target in tested for item in unfitted]], strengths)
    steered_at = [i for i, c in enumerate(strengths) if c in FRESH_STRENGTHS]
    term = torch.tensor([sorted({item.target for item in unfitted}).index(item.target) for item in unfitted])
    compared = {
        name: [
            {"strength": c, **beside(estimate, value)}
            for c, estimate, value in zip(strengths, reported[name], known[name], strict=True)
        ]
        for name in (*COMPARED, "share", "share_change")
    }
    items = {item.id: item for item in stereotype_items()}
    odds = torch.tensor([items[example.id].log_odds for example in test.examples])
    return {
        "arm": arm.name,
        "kind": kind,
        "layer": layer,
        "sentences": len(sentences),
        "compared": compared,
        "fresh": coverage(logp[[0, *(i + 1 for i in steered_at)]], term, [strengths[i] for i in steered_at]),
        "mass": {name: known[name] for name in ("mass_stereotype", "mass_anti", "mass_unrelated")},
        "planted_share": float(torch.sigmoid(odds).mean()),
        "tone": tone(subject) if arm.model == arm.vector else {},
    }


@torch.no_grad()
def tone(subject: Subject) -> dict[str, Any]:
    """Measure a change that the language itself makes, from neutral to harsh or mild openers, and its planted value."""
    changes = {}
    shares, true_shares = {}, {}
    for name in ("neutral", "harsh", "mild"):
        test = split(subject.kind, False, TEST, name)
        options = [question.choices for question in test.contrasts.questions]
        scores = added(subject.llm, test.contrasts, None, torch.zeros(1, 1))
        shares[name] = odds_share(subject.llm, options, scores)[0]
        items = {item.id: item for item in stereotype_items(name)}
        odds = torch.tensor([items[example.id].log_odds for example in test.examples], dtype=torch.float64)
        true_shares[name] = torch.sigmoid(odds).mean()
    for name in ("harsh", "mild"):
        change = {"change": (shares[name] - shares["neutral"]).unsqueeze(1)}
        estimate = estimate_columns(change, {"change": KINDS["share_change"]}, subject.test.term)["change"][0]
        changes[name] = beside(estimate, float(true_shares[name] - true_shares["neutral"]))
    return changes
