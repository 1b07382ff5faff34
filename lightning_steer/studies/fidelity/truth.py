"""What a report says, beside what is true: of the steered model itself, and of the language where its change is known.

The reported figures come from one sentence for each target and pair of words. The true ones come from every sentence
around the same targets and every unrelated word, so that nothing is left to chance but the targets themselves.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer.data.pocket_items import Traits, stereotype_items, traits
from lightning_steer.data.stereoset import TEST
from lightning_steer.llm import LLM
from lightning_steer.metrics.columns import estimate_columns
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Mean
from lightning_steer.studies.fidelity.settings import Arm, Scale
from lightning_steer.studies.fidelity.subject import Subject, added, split
from lightning_steer.studies.fidelity.sweep import along, estimates_along, with_unsteered
from lightning_steer.tokens import Question

PAIRS, UNRELATED = 6, 8
KINDS = {"share": Mean(0, 1), "share_change": Mean(-1, 1, steady=True)}  # of one vector in one sentence after another
"""P(stereotype | stereotype or opposite), and by how much it moved."""
COMPARED = ("p_stereotype", "p_anti", "p_unrelated", "intended", "opposed", "collateral", "fidelity", "ss", "lms")


def population(kind: str, targets: set[str]) -> list[Traits]:
    """Every held-out neutral sentence around each target, up to the word itself."""
    every = traits(frames=10_000)
    return [one for one in every if one.bias_type == kind and one.target in targets and one.begun.startswith("They")]


def odds_share(llm: LLM, options: Sequence[tuple[str, ...]], scores: Tensor) -> Tensor:
    """``[C, n]`` P(stereotype | stereotype or opposite) from mean log-probabilities of sentences of equal length."""
    count = torch.tensor([len(llm.tokenizer(o[0], add_special_tokens=False)["input_ids"]) for o in options])
    return torch.sigmoid(count * (scores[..., 0] - scores[..., 1])).double()


@torch.no_grad()
def words(subject: Subject, site: str, found: Sequence[Traits], strengths: Sequence[float]) -> Tensor:
    """``[1 + S, n, 20]`` log-probabilities of all words: unsteered, then at each strength."""
    llm = subject.llm
    asked = [Question(f"{one.prompt} {one.begun}", tuple(f" {word}" for word in one.words)) for one in found]
    vectors = torch.tensor([0.0, *strengths])[:, None] * subject.vectors[site]
    return llm.scores(asked, {site: lambda h: h + vectors[:, None, None]}, len(vectors))


def true_values(logp: Tensor, strengths: Sequence[float]) -> dict[str, list[float]]:
    """The measures over all sentences, pairs and unrelated words, at each strength."""
    c, n, _ = logp.shape
    triples = torch.stack(
        [
            logp[..., :PAIRS, None].expand(c, n, PAIRS, UNRELATED),
            logp[..., PAIRS : 2 * PAIRS, None].expand(c, n, PAIRS, UNRELATED),
            logp[..., None, 2 * PAIRS :].expand(c, n, PAIRS, UNRELATED),
        ],
        -1,
    ).flatten(1, 3)
    rows = {name: column.mean(0) for name, column in along(triples[0], triples[1:], strengths).items()}
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


def beside(estimate: Estimate, true: float) -> dict[str, Any]:
    """Return what is reported beside what is true, and whether the interval holds it; None where there is none."""
    inside = None if math.isnan(estimate.low + estimate.high) else estimate.low <= true <= estimate.high
    return {"reported": list(estimate), "true": true, "inside": inside}


@torch.no_grad()
def run(arm: Arm, models: Mapping[str, Path], kind: str, scale: Scale, layer: int) -> dict[str, Any]:
    """Reported and true figures at one layer, and whether the first's interval holds the second."""
    subject = Subject(arm, models, kind)
    llm, test = subject.llm, subject.test
    site, strengths = llm.sites[layer], scale.strengths
    base = added(llm, test.contrasts, None, torch.zeros(1, 1))
    steered = added(llm, test.contrasts, site, torch.tensor(strengths)[:, None] * subject.vectors[site])
    options = [question.options for question in test.contrasts.questions]
    before, after = odds_share(llm, options, base), odds_share(llm, options, steered)
    rows = {"share": after.T, "share_change": (after - before).T}
    of_shares = with_unsteered(estimate_columns(rows, KINDS, test.term), strengths, {"share_change": 0.0})
    reported = estimates_along(along(base[0], steered, strengths), test.term, strengths) | of_shares
    targets = {example.target for example in test.examples}
    found = population(kind, targets)
    truth = true_values(words(subject, site, found, strengths), strengths)
    compared = {
        name: [
            {"strength": c, **beside(estimate, value)}
            for c, estimate, value in zip(strengths, reported[name], truth[name], strict=True)
        ]
        for name in (*COMPARED, "share", "share_change")
    }
    planted = {item.id: item for item in stereotype_items()}
    odds = torch.tensor([planted[example.id].log_odds for example in test.examples])
    return {
        "arm": arm.name,
        "kind": kind,
        "layer": layer,
        "sentences": len(found),
        "compared": compared,
        "mass": {name: truth[name] for name in ("mass_stereotype", "mass_anti", "mass_unrelated")},
        "planted_share": float(torch.sigmoid(odds).mean()),
        "tone": tone(subject) if arm.model == arm.vector else {},
    }


@torch.no_grad()
def tone(subject: Subject) -> dict[str, Any]:
    """A change that the language itself makes: from neutral openers to harsh or mild ones, measured and planted."""
    found = {}
    shares, planted = {}, {}
    for name in ("neutral", "harsh", "mild"):
        part = split(subject.kind, False, TEST, name)
        options = [question.options for question in part.contrasts.questions]
        scores = added(subject.llm, part.contrasts, None, torch.zeros(1, 1))
        shares[name] = odds_share(subject.llm, options, scores)[0]
        items = {item.id: item for item in stereotype_items(name)}
        odds = torch.tensor([items[example.id].log_odds for example in part.examples], dtype=torch.float64)
        planted[name] = torch.sigmoid(odds).mean()
    for name in ("harsh", "mild"):
        change = {"change": (shares[name] - shares["neutral"]).unsqueeze(1)}
        estimate = estimate_columns(change, {"change": KINDS["share_change"]}, subject.test.term)["change"][0]
        found[name] = beside(estimate, float(planted[name] - planted["neutral"]))
    return found
