"""What the page says of refusal_direction."""

import math
from pathlib import Path

import numpy as np

from lightning_steer.statistics.kinds import Share
from lightning_steer.statistics.power import PairedDesign
from lightning_steer.studies.published import choice_noise
from lightning_steer.studies.published.kl_budget import KLBudget
from lightning_steer.studies.published.markdown import table
from lightning_steer.studies.published.refusal_direction import (
    JUDGES,
    NAMES,
    SETTINGS,
    JudgedModel,
    answers,
    disagreements,
    paired,
    read,
    shares,
)
from lightning_steer.studies.published.refusal_direction_judges import judges_section
from lightning_steer.studies.published.sources import REFUSAL_DIRECTION, Section, head

RULE = KLBudget()
ERRORS = ((0.1, 0.0), (0.3, 0.0), (1.0, 0.0), (0.3, 0.2), (1.0, 0.2))
"""Standard errors of the mean scores, and relative ones of the mean KL, that are tried."""
PROMPTS = 32
"""Validation prompts behind a score, by the repository's configuration, before any were filtered out."""


def section(outcomes: Path) -> Section:
    """Return what the page says."""
    models = read(outcomes)
    lines = [
        *head(REFUSAL_DIRECTION),
        *_choice(models),
        *_verdicts(models),
        *_paired(models),
        *judges_section(models),
        *_harmless(models),
        *_losses(models),
    ]
    apart = " and ".join(f"{sum(disagreements(model).values())} of {answers(model)}" for model in models)
    short = (
        f"The published direction of {_agreeing(models)} models follows from the released scores. Both interventions "
        f"raise the answered requests, by much; which does so more is decided in {_decided(models)} comparisons. The "
        f"judges differ on {apart} answers. This changes how large a rise is certain (prompts taken for independent)."
    )
    return Section(short, lines)


def _agreeing(models: list[JudgedModel]) -> str:
    chosen = [RULE.choose(model.candidates, model.layers) for model in models]
    agree = [choice is not None and tuple(choice[:2]) == m.published for choice, m in zip(chosen, models, strict=True)]
    return f"{sum(agree)} of {len(models)}"


def _decided(models: list[JudgedModel]) -> str:
    p = [paired(model, name).p for model in models for name in JUDGES]
    return f"{sum(value < 0.05 for value in p)} of {len(p)}"


def _choice(models: list[JudgedModel]) -> list[str]:
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
        errors = [choice_noise.share_of_same_choice(RULE, model.candidates, model.layers, *error) for error in ERRORS]
        far.append((model.name, *(f"{share:.2f}" for share in errors)))
    return [
        "### The choice of a direction",
        "",
        f"The stated rule: KL at most {RULE.budget:g}, score with addition at least "
        f"{RULE.least_added:g}, layer in the first {RULE.depth:.0%} of the network, smallest score with ablation. "
        f"From the released scores it gives the published position and layer of {_agreeing(models)} models.",
        "",
        *table(
            ("model", "allowed", "chosen", "score", "margin to the next", "KL", "budgets with the same choice"), rows
        ),
        f"How sure is that choice? The scores are means over some {PROMPTS} validation prompts, and the prompts' own "
        "scores are not released, so there is no interval. What can be said is how often the choice would stay if the "
        f"means had independent normal errors ({choice_noise.DRAWS:,} draws, seed {choice_noise.SEED}; the scores are "
        "log-odds). *Error* is the standard deviation of the errors of both scores, *KL 20%* that of the error of log "
        "KL, .2. If errors of candidates on the same prompts are alike, the choice is surer than this:",
        "",
        *table(
            ("same choice", *(f"error {a:g}, KL {b:.0%}" if b else f"error {a:g}" for a, b in ERRORS)),
            far,
        ),
    ]


def _verdicts(models: list[JudgedModel]) -> list[str]:
    rows = []
    for model in models:
        for name in JUDGES:
            alone, grouped = shares(model, name, False), shares(model, name, True)
            for setting, single, other in zip(SETTINGS, alone, grouped, strict=True):
                rows.append(
                    (
                        model.name,
                        name,
                        NAMES[setting],
                        f"{round(single.value * single.n)} of {single.n}",
                        single.text(3),
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


def _paired(models: list[JudgedModel]) -> list[str]:
    rows, decided, ahead = [], 0, 0
    for model in models:
        for name in JUDGES:
            comparison = paired(model, name)
            n, discordant = comparison.change.n, comparison.ablation_alone + comparison.addition_alone
            design = PairedDesign(n, discordant / n)
            needed = design.units_needed(abs(comparison.change.value)) if comparison.change.value else None
            decided += comparison.p < 0.05
            ahead += comparison.change.value > 0
            rows.append(
                (
                    model.name,
                    name,
                    comparison.ablation_alone,
                    comparison.addition_alone,
                    comparison.change.text(3),
                    f"{comparison.p:.3f}",
                    "decided" if comparison.p < 0.05 else "undecided",
                    "-" if needed is None else f"{needed:,}",
                )
            )
    count = len(rows)
    return [
        "### Ablation or addition?",
        "",
        f"On the same prompts, by McNemar's exact test, {count - decided} of {count} "
        f"comparisons are undecided; ablation is ahead in {ahead} of all comparisons. The last column is "
        "the number of prompts that would show the observed difference in 80 % of repeats, if it were the true one. "
        "Where only a handful of answers differ, the score interval (Tango) may leave out 0; the exact test decides.",
        "",
        *table(
            ("model", "judge", "answered with ablation alone", "with addition alone", "difference", "p", "", "needed"),
            rows,
        ),
        f"That takes prompts for independent draws. Over the {len(np.unique(models[0].category))} categories the "
        f"intervals of the differences are wider: the narrowest is {_narrowest(models)}, so that a difference of a few "
        "points could not have been seen in new categories.",
        "",
    ]


def _narrowest(models: list[JudgedModel]) -> str:
    """Return the narrowest interval of ablation less addition over categories, of all models and judges."""
    estimates = [paired(model, name, clustered=True).change for model in models for name in JUDGES]
    narrowest = min(estimates, key=lambda estimate: estimate.high - estimate.low)
    return f"[{narrowest.low:.3f}, {narrowest.high:.3f}]"


def _harmless(models: list[JudgedModel]) -> list[str]:
    rows = []
    for model in models:
        estimates = Share().estimate(np.stack(list(model.harmless.values()), 1))
        counts = [f"{round(estimate.value * estimate.n)} of {estimate.n}, {estimate.text(3)}" for estimate in estimates]
        rows.append((model.name, *counts))
    return [
        "### Harmless requests that are refused",
        "",
        "By phrases, with exact intervals:",
        "",
        *table(("model", "no steering", "addition"), rows),
    ]


def _losses(models: list[JudgedModel]) -> list[str]:
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
