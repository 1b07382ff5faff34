"""The swap control: how much of a vector's effect survives if the letters of the answers are exchanged.

A vector for the answers' content moves the exchanged pairs like the others: 100 % survives. A vector for the
letter moves them in the opposite direction: -100 %.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_steer.data.behaviours.examples import BehaviourExample
from lightning_steer.data.behaviours.module import BehaviourDataModule, question
from lightning_steer.data.pair_module import TEST
from lightning_steer.hooks import Edit
from lightning_steer.lint import LintReport
from lightning_steer.lint.records import ends
from lightning_steer.lint.swap import swapped
from lightning_steer.lm.language_model import LLM
from lightning_steer.metrics.behaviour_effect import KINDS, behaviour_rows
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Smooth


class SwapControl(NamedTuple):
    """Changes of the margin in nats per token, and their ratio."""

    effect: Estimate
    """On the pairs."""
    swapped: Estimate
    """On the same pairs with their letters exchanged."""
    surviving: Estimate
    """``swapped / effect``; without an interval if that of the effect comes close to 0."""


@torch.no_grad()
def swap_control(
    llm: LLM, examples: Sequence[BehaviourExample], edits: Mapping[str, Edit], cluster: Sequence[int] | None = None
) -> SwapControl:
    """Score pairs and the same pairs with their letters exchanged, unsteered and steered.

    Args:
        llm: the model, loaded.
        examples: held-out pairs, with lettered options.
        edits: the edit of each site.
        cluster: number of each pair's cluster; None: pairs are independent.

    Raises:
        ValueError: naming a pair whose letters cannot be exchanged.
    """
    pairs = [(example.prompt, example.positive, example.negative) for example in examples]
    texts = [dict(zip(("prompt", "positive", "negative"), pair, strict=True)) for pair in swapped(pairs)]
    exchanged = [example._replace(**text) for example, text in zip(examples, texts, strict=True)]
    changes = np.stack([_margin_change(llm, rows, edits) for rows in (examples, exchanged)], 1)
    effect, swapped_effect = KINDS["margin_change"].estimate(changes, cluster)
    return SwapControl(effect, swapped_effect, surviving_share(changes, effect, cluster))


def surviving_share(changes: NDArray, effect: Estimate, cluster: Sequence[int] | None = None) -> Estimate:
    """Return the ratio of the means of ``changes [n, 2]``, the second over the first, with a jackknife interval.

    The interval is valid if the ``effect``, the first mean, is clearly not 0: its nearer end is at least half of it.
    """
    (share,) = Smooth(_ratio).estimate(changes[:, 1], changes[:, 0], cluster=cluster)
    nearer = effect.low if effect.value > 0 else -effect.high
    if nearer >= abs(effect.value) / 2:  # False for NaN
        return share
    reason = "none: the effect is too uncertain to take a share of it, more pairs are needed"
    return Estimate.described(share.value, share.n, share.clusters, reason)


def _margin_change(llm: LLM, examples: Sequence[BehaviourExample], edits: Mapping[str, Edit]) -> NDArray:
    questions = [question(example) for example in examples]
    base = llm.scores(questions)[0].cpu()
    return behaviour_rows(base, llm.scores(questions, edits).cpu())["margin_change"][0].numpy()


def _ratio(weights: NDArray, numerator: NDArray, denominator: NDArray) -> NDArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return (weights @ numerator) / (weights @ denominator)


def swap_sentences(report: LintReport, llm: LLM, data: BehaviourDataModule, edits: Mapping[str, Edit]) -> list[str]:
    """Return a sentence on the surviving effect if the lint found that a letter tells positives from negatives."""
    if not any(imbalance.tells and imbalance.feature.startswith("letter") for imbalance in report.imbalances):
        return []
    try:
        control = swap_control(llm, data.parts[TEST], edits, data.clusters[TEST])
    except ValueError as error:
        return [f"There is no swap control, for the letters of a held-out pair cannot be exchanged ({error})."]
    return [
        f"Swap control: with the letters of the answers exchanged, {ends(control.surviving)} of the effect on "
        f"{control.effect.n} held-out pairs survives (change of the margin {_ends(control.swapped)} nats per token "
        f"instead of {_ends(control.effect)}). A vector for what the answers say would keep 100 %, one for the "
        "letter -100 %."
    ]


def _ends(estimate: Estimate) -> str:
    interval = "" if math.isnan(estimate.low) else f" [{estimate.low:+.3f}, {estimate.high:+.3f}]"
    return f"{estimate.value:+.3f}{interval}"
