"""Text that a model generates after the held-out prompts: shown, and scored by the unsteered model.

Drift on unrelated text does not reveal a model that breaks at the prompts of the pairs. So their held-out prompts are
continued, and the unsteered model scores the generated text. Text that it finds less likely than the
positive continuations is a sign of damage.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.pair_module import TEST
from lightning_steer.hooks import Edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice, TokenRow, batches, row_of
from lightning_steer.networks.backbone import Backbone
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Mean

NEW, PROMPTS, SHOWN = 24, 32, 5
"""Number of tokens generated after a prompt, of prompts continued at most, and of texts that a report shows."""
NEAR = 4
"""A word counts as repeated if it is among this many words before it."""
REPEATED = 0.05
"""Largest accepted excess of the share of repeated words over the baseline's."""
CARRIED = "none: it may be carried by a few texts"


class Written(NamedTuple):
    """Greedy continuations of n prompts."""

    texts: list[str]
    nats: Tensor
    """``[n]`` negative mean log-probability of their tokens under the unsteered model."""
    repeated: Tensor
    """``[n]`` share of words that repeat one of the four before them; 0 for empty text."""


def continued(llm: LLM, prompts: Sequence[str], edits: Mapping[str, Edit] | None = None) -> Written | None:
    """Continue prompts with these edits; None if the longest leaves no room for new tokens."""
    ids = llm.prompts(prompts, 1)
    new_tokens = int(min(NEW, llm.longest - max(map(len, ids))))
    if new_tokens < 1:
        return None
    written = llm.continued(prompts, edits, new_tokens)
    rows = [row_of(before, [(0, after)], i) for i, (before, after) in enumerate(zip(ids, written, strict=True))]
    texts = llm.tokenizer.batch_decode(written, skip_special_tokens=True)
    return Written(texts, surprise(llm, rows), torch.tensor([repetition(text) for text in texts]))


def of_positives(llm: LLM, positive: Sequence[MultipleChoice]) -> float:
    """Return the unsteered model's mean surprise at the continuations of one-option questions, in nats per token."""
    return float(surprise(llm, llm.rows(positive)).mean())


@torch.no_grad()
def surprise(llm: LLM, rows: Sequence[TokenRow]) -> Tensor:
    """Return the unsteered negative mean log-probability ``[n]`` of the tokens that each of n rows scores."""
    total = torch.zeros(len(rows), device=llm.device)
    for batch in batches(rows, llm.tokens_per_batch):
        h = llm.decoder.states(llm.decoder.collate(batch, llm.pad))
        index, values = llm.decoder.scored(h, batch, 1)
        total = total.index_add(0, index, values[0])
    return -total.cpu() / torch.tensor([len(row.reads) for row in sorted(rows, key=lambda row: row.example)])


def repetition(text: str) -> float:
    """Return the share of words that repeat one of the four before them."""
    words = text.split()
    return sum(word in words[max(0, i - NEAR) : i] for i, word in enumerate(words)) / max(len(words), 1)


def broken(steered: Written, baseline: Written, positive: float) -> list[str]:
    """Return what is wrong with steered text: it repeats itself, or it is less likely than the positive continuations.

    Args:
        steered: what the steered model wrote.
        baseline: what the model wrote after the same prompts, unsteered.
        positive: :func:`of_positives` for these prompts.
    """
    faults = []
    before, after = float(baseline.repeated.mean()), float(steered.repeated.mean())
    if after > before + REPEATED:
        faults.append(
            f"repeats itself: {100 * after:.0f} % of its words are among the four before them, unsteered "
            f"{100 * before:.0f} %"
        )
    baseline_nats, steered_nats = float(baseline.nats.mean()), float(steered.nats.mean())
    if not steered_nats <= max(baseline_nats, positive):
        faults.append(
            f"is less likely to the unsteered model ({steered_nats:.2f} nats per token) than the positive "
            f"continuations are ({positive:.2f}; its own text {baseline_nats:.2f})"
        )
    return faults


def figures(written: Written) -> dict[str, dict[str, Any]]:
    """Return both measures in the form of reports."""
    repeated = Mean(0, 1).estimate(np.asarray(written.repeated, dtype=np.float64))[0]
    nats = Estimate.described(float(written.nats.mean()), len(written.texts), None, CARRIED)
    return {"text_nats": nats._asdict(), "text_repetition": repeated._asdict()}


def add_to(report: dict[str, Any], data: Any, backbone: Backbone, edits: Mapping[str, Edit]) -> None:
    """Add to a report the steered and unsteered text after a behaviour's held-out prompts, if there are any."""
    if not (isinstance(data, BehaviourDataModule) and isinstance(backbone, LLM)):
        return
    questions = data.continued(TEST, PROMPTS)
    prompts = [question.prompt for question in questions]
    baseline, steered = continued(backbone, prompts), continued(backbone, prompts, edits)
    if baseline is None or steered is None:
        report["warnings"].append("No text was generated: the longest prompt leaves no room for new tokens.")
        return
    faults = broken(steered, baseline, of_positives(backbone, questions))
    report["warnings"] = [*(f"Text steered at held-out prompts {fault}." for fault in faults), *report["warnings"]]
    report["metrics"] |= figures(steered)
    report["baselines"]["baseline"] |= figures(baseline)
    columns = {"prompt": prompts, "baseline": baseline.texts, "steered": steered.texts}
    report["texts"] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)][:SHOWN]
