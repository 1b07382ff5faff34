"""Prompts of the pocket models: states, planted answers, and what the answer depends on."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.data.pocket import tasks
from lightning_steer.data.pocket.items import traits
from lightning_steer.data.pocket.prompts import task_prompts
from lightning_steer.data.pocket.stereotypes import BIAS_TYPES
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import LastPromptToken
from lightning_steer.lm.tokens import MultipleChoice, batches

GOALS = ("sms_spam", "sentiment_analysis", *BIAS_TYPES)
"""The margin of a task's first label over its second; of a bias type's first harsh word over its antonym."""


class Reading(NamedTuple):
    """n prompts, read at their last token."""

    h: Tensor
    """``[layers, n, d]`` outputs of the blocks."""
    gradient: Tensor
    """``[layers, n, d]`` of the margin by these outputs; the margin is one token's logit less another's."""
    states: Tensor
    """``[n, d]`` inputs of the vocabulary head."""
    margin: Tensor
    """``[n]``."""
    ground_truth: Tensor
    """``[n]`` the margin of a perfect model: the planted log-odds of the two tokens."""
    pair: Tensor
    """``[2]`` the two tokens."""

    def part(self, start: int, end: int) -> "Reading":
        """Return some of the prompts."""
        rows = slice(start, end)
        states, margin, known = (x[rows] for x in (self.states, self.margin, self.ground_truth))
        return Reading(self.h[:, rows], self.gradient[:, rows], states, margin, known, self.pair)


def prompts(goal: str, n: int, seed: int, chat: bool) -> tuple[list[MultipleChoice], list[float], tuple[str, ...]]:
    """Return n different prompts of a goal in random order, their planted log-odds, and the two words."""
    if goal in tasks.NAMES:
        drawn = [p for p in task_prompts(goal, 5 * n, seed, chat=chat) if p.label < 2]
        words = drawn[0].labels[:2]
        rows = {MultipleChoice(p.prompt): p.ground_truth[:2] for p in drawn}
        odds = [(question, float(torch.tensor(p).double().log().diff().neg())) for question, p in rows.items()]
    else:
        kind = [t for t in traits(held_frames=False, chat=chat, frames=-(-n // 24), seed=seed) if t.bias_type == goal]
        words = (kind[0].words[0], kind[0].words[6])
        odds = [(MultipleChoice(t.prompt, (f" {t.begun}",)), t.ground_truth[0] - t.ground_truth[6]) for t in kind]
        order = torch.randperm(len(odds), generator=torch.Generator().manual_seed(seed))
        odds = [odds[i] for i in order]
    return [question for question, _ in odds[:n]], [value for _, value in odds[:n]], words


def read(llm: LLM, goal: str, n: int, seed: int) -> Reading:
    """Read n prompts of a goal at every layer of a pocket model."""
    questions, known, words = prompts(goal, n, seed, llm.chat)
    pair, n = torch.tensor(llm.tokenizer.convert_tokens_to_ids(list(words))), len(questions)
    decoder, width = llm.decoder, llm.width(llm.sites[0])
    h, gradient = torch.zeros(2, len(llm.sites), n, width)
    states, margin = torch.zeros(n, width), torch.zeros(n)
    for group in batches(llm.texts(questions), llm.tokens_per_batch):
        batch = decoder.collate(group, llm.pad)
        places, at_last = torch.tensor([row.example for row in group]), (torch.arange(len(group)), batch.prompt - 1)
        shifts = [torch.zeros(len(group), width, requires_grad=True) for _ in llm.sites]

        def shifted(x: Tensor, layer: int, places=places, at_last=at_last, shifts=shifts) -> Tensor:  # noqa: ANN001
            h[layer, places] = x.detach()[0][at_last]
            return x + shifts[layer][:, None]

        edits = {site: partial(shifted, layer=k) for k, site in enumerate(llm.sites)}
        mask = LastPromptToken().mask(batch.index, batch.prompt)
        with torch.enable_grad(), decoder.steered(batch, edits, mask, 1):
            last = decoder.states(batch)[at_last]
            logits = decoder.logits(last, pair)
            difference = logits[:, 0] - logits[:, 1]
            slopes = torch.autograd.grad(difference.sum(), shifts)
        states[places], margin[places], gradient[:, places] = last.detach(), difference.detach(), torch.stack(slopes)
    return Reading(h, gradient, states.double(), margin.double(), torch.tensor(known).double(), pair)
