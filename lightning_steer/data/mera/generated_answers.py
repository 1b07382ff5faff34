"""The position ``exact``: a model generates its answer, which is graded where its first label begins.

The first label in the generated text is the answer; the text before it becomes part of the prompt. So activations are
read, and labels scored, at the token whose output predicts the label. An answer without a label counts as wrong: its
error is 1, never 0; so does one with part of a character before its label. The position ``last`` needs none of this: it
scores labels right after the prompt.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lightning_steer.data.base import LabelledBatch
from lightning_steer.errors import UserError
from lightning_steer.hooks import Edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice

NEVER = -1e5
"""A log-probability so low that its probability is 0 in float64; minus infinity would have no gradient."""

BROKEN = "\ufffd"
"""Stands in decoded text for bytes that are no character."""


@dataclass(frozen=True)
class Answering:
    """Settings for generated answers.

    Args:
        max_new_tokens: longest answer in tokens.
        rows_at_once: prompts continued together, copies counted.
    """

    max_new_tokens: int = 100
    rows_at_once: int = 32

    def __post_init__(self) -> None:
        if min(self.max_new_tokens, self.rows_at_once) < 1:
            raise UserError(
                f"max_new_tokens and rows_at_once are positive, not {self.max_new_tokens} and {self.rows_at_once}"
            )


class Answered(NamedTuple):
    """A model's generated answers to prompts."""

    questions: list[MultipleChoice]
    """The prompts, each with the text generated before the label; unchanged where there is no label."""
    option: Tensor
    """``[n]`` int64: index of the generated option; -1 where there is none."""
    text: list[str]
    """The whole generated texts."""

    @property
    def parsed(self) -> Tensor:
        """Return ``[n]`` bool: whether the answer has a label."""
        return self.option >= 0

    def graded(self, batch: LabelledBatch) -> LabelledBatch:
        """Return the batch with these prompts, so that its error is read at the label."""
        return batch._replace(x=self.questions)

    def error(self, error: Tensor) -> Tensor:
        """Return the class-normalised ``error [n]`` at the label, and 1 where there is no label."""
        return torch.where(self.parsed.to(error.device), error, 1.0)

    def scored(self, scores: Tensor) -> Tensor:
        """Return ``[n, options + 1]`` log-probabilities: of the options ``[n, options]``, then of no label at all."""
        unparsed = ~self.parsed.to(scores.device).unsqueeze(1)
        no_label = torch.where(unparsed, 0.0, NEVER).to(scores)
        return torch.cat([scores.masked_fill(unparsed, NEVER), no_label], 1)


def first_label(text: str, options: Sequence[str]) -> tuple[int, int]:
    """Return ``(option, start)`` of the first label that is a word of its own; the longest if several begin there.

    ``(-1, 0)`` if there is none.
    """
    labels = [option.strip() for option in options]
    order = sorted(range(len(labels)), key=lambda i: -len(labels[i]))
    pattern = "|".join(f"(?P<o{i}>{re.escape(labels[i])})" for i in order if labels[i] not in labels[:i])
    match = re.search(rf"(?<!\w)(?:{pattern})(?!\w)", text)
    return (-1, 0) if match is None or match.lastgroup is None else (int(match.lastgroup[1:]), match.start())


def answer(
    llm: LLM,
    questions: Sequence[MultipleChoice],
    edits: Mapping[str, Edit] | None = None,
    max_new_tokens: int = 100,
    rows_at_once: int = 32,
) -> Answered:
    """Generate answers, steered or not, up to the first label.

    Args:
        llm: the model; prompts in a chat template cannot be continued and are refused.
        questions: prompts with the labels' written variants as options.
        edits: how the model is steered while it generates.
        max_new_tokens: longest answer in tokens.
        rows_at_once: prompts continued together.

    Raises:
        ValueError: the model's prompts are in a chat template.
    """
    return answers(llm, questions, edits, 1, Answering(max_new_tokens, rows_at_once))[0]


def answers(
    llm: LLM, questions: Sequence[MultipleChoice], edits: Mapping[str, Edit] | None, copies: int, answering: Answering
) -> list[Answered]:
    """Generate answers as :func:`answer`, ``copies`` times: an edit gets the rows of all copies, copy by copy."""
    if llm.chat:
        raise UserError("the position exact continues plain prompts: write the chat's marks into the template instead")
    texts = [[""] * len(questions) for _ in range(copies)]
    order = sorted(range(len(questions)), key=lambda i: len(questions[i].prompt))
    prompts_at_once = max(1, answering.rows_at_once // copies)
    for start in tqdm(range(0, len(order), prompts_at_once), desc="answering", leave=False, disable=None):
        rows = order[start : start + prompts_at_once]
        batch = [questions[i] for i in rows] * copies
        stop = _Stop(llm, [question.choices for question in batch])
        prompts = [question.prompt for question in batch]
        outputs = llm.generate(prompts, answering.max_new_tokens, edits=edits, stopping_criteria=[stop])
        for j, text in enumerate(outputs):
            texts[j // len(rows)][rows[j % len(rows)]] = text
    return [_cut(questions, copy_texts) for copy_texts in texts]


def _cut(questions: Sequence[MultipleChoice], texts: list[str]) -> Answered:
    chosen, answered = [], []
    for question, text in zip(questions, texts, strict=True):
        option, begin = first_label(text, question.choices)
        if BROKEN in text[:begin]:  # part of a character has no text that could be read again before the label
            option = -1
        before = text[:begin].rstrip() if option >= 0 else ""
        answered.append(question._replace(prompt=question.prompt + before))
        chosen.append(option)
    return Answered(answered, torch.tensor(chosen, dtype=torch.int64), texts)


class _Stop:
    """Stop a row once text follows its label: until then the label may grow into another word."""

    def __init__(self, llm: LLM, options: Sequence[Sequence[str]]) -> None:
        self.llm, self.choices, self.start = llm, options, 0

    def __call__(self, ids: Tensor, _scores: object, **_more: object) -> Tensor:
        self.start = self.start or ids.shape[1] - 1
        texts = self.llm.tokenizer.batch_decode(ids[:, self.start :], skip_special_tokens=True)
        done = []
        for text, options in zip(texts, self.choices, strict=True):
            option, begin = first_label(text, options)
            done.append(option >= 0 and len(text) > begin + len(options[option].strip()))
        return torch.tensor(done, device=ids.device)
