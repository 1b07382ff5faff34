"""What the page says of refusal_direction."""

import csv
import math
import tempfile
from pathlib import Path

import numpy as np

from lightning_steer.outcomes import judge
from lightning_steer.outcomes.records import Judgement
from lightning_steer.selection.kl_budget import KLBudget
from lightning_steer.statistics.kinds import Share
from lightning_steer.statistics.power import PairedDesign
from lightning_steer.studies.published import choice_noise
from lightning_steer.studies.published.markdown import table
from lightning_steer.studies.published.refusal_direction import (
    JUDGES,
    SETTINGS,
    Model,
    disagreements,
    paired,
    read,
    shares,
)
from lightning_steer.studies.published.sources import REFUSAL_DIRECTION, Section, head

RULE = KLBudget()
NAMES = {"baseline": "no steering", "ablation": "ablation", "actadd": "addition"}
ERRORS = ((0.1, 0.0), (0.3, 0.0), (1.0, 0.0), (0.3, 0.2), (1.0, 0.2))
"""Standard errors of the mean scores, and relative ones of the mean KL, that are tried."""
PROMPTS = 32
"""Validation prompts behind a score, by the repository's configuration, before any were filtered out."""
LIMITS = (0.5, 0.6, 0.7, 0.8)
"""Promised rises of answered requests under which the judges' verdicts are compared."""


def section(outcomes: Path) -> Section:
    """Return what the page says."""
    models = read(outcomes)
    lines = [
        *head(REFUSAL_DIRECTION),
        *_choice(models),
        *_verdicts(models),
        *_paired(models),
        *_judges(models),
        *_harmless(models),
        *_losses(models),
    ]
    apart = " and ".join(f"{sum(disagreements(model).values())}" for model in models)
    short = (
        "The published direction of both models follows from the released scores. Both interventions work beyond "
        f"doubt; which works better is undecided. The judges differ on {apart} of 300 answers, which turns how much is "
        "certain, not whether."
    )
    return Section(short, lines)


def _choice(models: list[Model]) -> list[str]:
    rows, far = [], []
    for model in models:
        allowed = RULE.allowed(model.candidates, model.layers)
        same = RULE.same_choice(model.candidates, model.layers)
        assert allowed
        assert same is not None
        best, margin = allowed[0], allowed[1].ablated - allowed[0].ablated if len(allowed) > 1 else math.inf
        agrees = "as published" if tuple(best[:2]) == model.published else f"published: {model.published}"
        top = "any larger" if same.high == math.inf else f"below {same.high:.3f}"
        rows.append(
            (
                model.name,
                f"{len(allowed)} of {len(model.candidates)}",
                f"position {best.position}, layer {best.layer} ({agrees})",
                f"{best.ablated:.2f}",
                f"{margin:.2f}",
                f"{best.kl:.3f}",
                f"{same.low:.3f} to {top}",
            )
        )
        errors = [choice_noise.kept(RULE, model.candidates, model.layers, *error) for error in ERRORS]
        far.append((model.name, *(f"{share:.2f}" for share in errors)))
    return [
        "### The choice of a direction",
        "",
        f"The stated rule: KL at most {RULE.budget:g}, score with addition at least "
        f"{RULE.least_added:g}, layer in the first {RULE.depth:.0%} of the network, smallest score with ablation. It "
        "gives the published position and layer of both models from the released scores.",
        "",
        *table(
            ("model", "allowed", "chosen", "score", "margin to the next", "KL", "budgets with the same choice"), rows
        ),
        f"How sure is that choice? The scores are means over some {PROMPTS} validation prompts, and the prompts' own "
        "scores are not released, so there is no interval. What can be said is how often the choice would stay if the "
        f"means had independent normal errors ({choice_noise.DRAWS:,} draws, seed {choice_noise.SEED}; the scores are "
        "log-odds). If errors of candidates on the same prompts are alike, the choice is surer than this:",
        "",
        *table(
            ("same choice", *(f"error {a:g}, KL {b:.0%}" if b else f"error {a:g}" for a, b in ERRORS)),
            far,
        ),
    ]


def _verdicts(models: list[Model]) -> list[str]:
    rows = []
    for model in models:
        for name in JUDGES:
            alone, grouped = shares(model, name, False), shares(model, name, True)
            for setting, one, other in zip(SETTINGS, alone, grouped, strict=True):
                rows.append(
                    (
                        model.name,
                        name,
                        NAMES[setting],
                        f"{round(one.value * one.n)} of {one.n}",
                        one.text(3),
                        f"[{other.low:.3f}, {other.high:.3f}]",
                    )
                )
    clusters = len(np.unique(models[0].category))
    return [
        "### Harmful requests that are answered",
        "",
        "With exact intervals of 95 % (Clopper-Pearson, prompts independent), and "
        f"with those over the {clusters} categories of the prompts (Korn and Graubard):",
        "",
        *table(("model", "judge", "setting", "answered", "share", "over categories"), rows),
    ]


def _paired(models: list[Model]) -> list[str]:
    rows, decided = [], 0
    for model in models:
        for name in JUDGES:
            one = paired(model, name)
            n, discordant = one.change.n, one.ablation_alone + one.addition_alone
            design = PairedDesign(n, discordant / n)
            needed = design.units_needed(abs(one.change.value)) if one.change.value else None
            decided += one.p < 0.05
            rows.append(
                (
                    model.name,
                    name,
                    one.ablation_alone,
                    one.addition_alone,
                    one.change.text(3),
                    f"{one.p:.3f}",
                    "decided" if one.p < 0.05 else "undecided",
                    "-" if needed is None else f"{needed:,}",
                )
            )
    count = len(rows)
    return [
        "### Ablation or addition?",
        "",
        f"On the same prompts, by McNemar's exact test, {count - decided} of {count} "
        "comparisons are undecided, and the direction of the difference differs between the models. The last column is "
        "the number of prompts that would show the observed difference in 80 % of repeats, if it were the true one. "
        "Where only a handful of answers differ, the score interval (Tango) may leave out 0; the exact test decides.",
        "",
        *table(
            ("model", "judge", "answered with ablation alone", "with addition alone", "difference", "p", "", "needed"),
            rows,
        ),
    ]


def judged(model: Model, limit: float) -> Judgement:
    """Return the judgement that requests are answered more often by more than ``limit``, by both judges."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answered.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("item", "setting", "judge", "value"))
            for (setting, name), values in model.complied.items():
                writer.writerows((i, NAMES[setting], name, bool(value)) for i, value in enumerate(values))
        return judge(path, f"answered>={limit}", baseline=NAMES["baseline"], judge=JUDGES[1], split=1.0)


def _judges(models: list[Model]) -> list[str]:
    rows, turns = [], []
    for model in models:
        counts = disagreements(model)
        first = judged(model, LIMITS[0])
        (compared,) = first.judges
        rows += [
            (model.name, one.setting, one.change.text(3), one.other.text(3), one.difference.text(3))
            for one in compared.settings
        ]
        verdicts = []
        for limit in LIMITS:
            judgement = judged(model, limit)
            assert judgement.choice is not None
            verdicts.append(f"{judgement.choice.chosen or 'none'} / {judgement.other_verdicts[0].chosen or 'none'}")
        n = sum(len(model.complied[setting, JUDGES[0]]) for setting in SETTINGS)
        parts = ", ".join(f"{NAMES[setting]} {number}" for setting, number in counts.items())
        turns.append((model.name, f"{sum(counts.values())} of {n} ({parts})", *verdicts))
    return [
        "### Two judges",
        "",
        f"{JUDGES[0]} looks for phrases of refusal, {JUDGES[1]} reads the answer. The effect by each, and the "
        " difference of both effects, item by item:",
        "",
        *table(("model", "setting", f"change by {JUDGES[1]}", f"by {JUDGES[0]}", "difference"), rows),
        "What their disagreements turn: the setting that is certified at .95 to raise answered requests by more than "
        f"a limit, by {JUDGES[1]} / by {JUDGES[0]} (all prompts choose; each limit is a call of its own):",
        "",
        *table(
            ("model", "scored differently", *(f"more than {limit:g}" for limit in LIMITS)),
            turns,
        ),
        "The judges agree that both interventions work. They differ on how well: an answer without a phrase of refusal "
        "is not yet a harmful one.",
        "",
    ]


def _harmless(models: list[Model]) -> list[str]:
    rows = []
    for model in models:
        estimates = Share().estimate(np.stack(list(model.harmless.values()), 1))
        counts = [f"{round(one.value * one.n)} of {one.n}, {one.text(3)}" for one in estimates]
        rows.append((model.name, *counts))
    return [
        "### Harmless requests that are refused",
        "",
        "By phrases, with exact intervals:",
        "",
        *table(("model", "no steering", "addition"), rows),
    ]


def _losses(models: list[Model]) -> list[str]:
    rows = [
        (model.name, text, *(f"{model.loss[setting][text]:.3f}" for setting in SETTINGS))
        for model in models
        for text in model.loss["baseline"]
    ]
    return [
        "### Cross-entropy on other texts",
        "",
        "In nats a token. Only means are released, so there is no interval:",
        "",
        *table(("model", "text", *(NAMES[setting] for setting in SETTINGS)), rows),
    ]
