"""The position ``exact``: a model answers in its own words, and is graded where its first label begins.

It generates; the first label in what it wrote is its answer, and the text up to there becomes part of the prompt. So
activations are read, and labels scored, at the token whose output predicts the label. Who writes no label is wrong:
error 1, never 0. The position ``last`` needs none of this: it takes the prompt as it is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lightning_steer.data.questions import Graded
from lightning_steer.hooks import Edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import Question

NEVER = -1e5
"""A log-probability whose share of any other's is 0 in float64; that of minus infinity would have no gradient."""


@dataclass(frozen=True)
class Answering:
    """The model answers in its own words.

    Args:
        max_new_tokens: it gives up after so many.
        rows_at_once: prompts that are continued together, copies counted.
    """

    max_new_tokens: int = 100
    rows_at_once: int = 32

    def __post_init__(self) -> None:
        if min(self.max_new_tokens, self.rows_at_once) < 1:
            raise ValueError(
                f"max_new_tokens and rows_at_once are positive, not {self.max_new_tokens} and {self.rows_at_once}"
            )


class Answered(NamedTuple):
    """What a model wrote after each prompt."""

    questions: list[Question]
    """The prompts, each with what was written before the label; where there is none, as they were."""
    option: Tensor
    """``[n]`` int64: which of the options was written; -1 where none was."""
    text: list[str]
    """All that was written."""

    @property
    def parsed(self) -> Tensor:
        """``[n]`` bool: a label was written."""
        return self.option >= 0

    def graded(self, batch: Graded) -> Graded:
        """The batch with these prompts: its error is that at the label."""
        return batch._replace(x=self.questions)

    def error(self, error: Tensor) -> Tensor:
        """``[n]`` the class-normalised ``error [n]`` at the label, and 1 where none was written."""
        return torch.where(self.parsed.to(error.device), error, 1.0)

    def scored(self, scores: Tensor) -> Tensor:
        """``[n, options + 1]`` log-probabilities of the options ``[n, options]``, then of no label at all."""
        none = ~self.parsed.to(scores.device).unsqueeze(1)
        last = torch.where(none, 0.0, NEVER).to(scores)
        return torch.cat([scores.masked_fill(none, NEVER), last], 1)


def first_label(text: str, options: Sequence[str]) -> tuple[int, int]:
    """``(option, start)`` of the first label in a text as a word of its own, the longest if several begin there.

    ``(-1, 0)`` if there is none.
    """
    bare = [option.strip() for option in options]
    order = sorted(range(len(bare)), key=lambda i: -len(bare[i]))
    pattern = "|".join(f"(?P<o{i}>{re.escape(bare[i])})" for i in order if bare[i] not in bare[:i])
    match = re.search(rf"(?<!\w)(?:{pattern})(?!\w)", text)
    return (-1, 0) if match is None or match.lastgroup is None else (int(match.lastgroup[1:]), match.start())


def answer(
    llm: LLM,
    questions: Sequence[Question],
    edits: Mapping[str, Edit] | None = None,
    max_new_tokens: int = 100,
    rows_at_once: int = 32,
) -> Answered:
    """Let the model answer, steered or not, up to its first label.

    Args:
        llm: the model; prompts in a chat template cannot be continued and are refused.
        questions: prompts with the labels' written variants as options.
        edits: how it is steered while it writes.
        max_new_tokens: it gives up after so many.
        rows_at_once: prompts that are continued together.

    Raises:
        ValueError: the model's prompts are in a chat template.
    """
    return answers(llm, questions, edits, 1, Answering(max_new_tokens, rows_at_once))[0]


def answers(
    llm: LLM, questions: Sequence[Question], edits: Mapping[str, Edit] | None, copies: int, answering: Answering
) -> list[Answered]:
    """As :func:`answer`, ``copies`` times: an edit is given the rows of all copies, copy by copy."""
    if llm.chat:
        raise ValueError("the position exact continues plain prompts: write the chat's marks into the template instead")
    texts = [[""] * len(questions) for _ in range(copies)]
    order = sorted(range(len(questions)), key=lambda i: len(questions[i].prompt))
    at_once = max(1, answering.rows_at_once // copies)
    for start in tqdm(range(0, len(order), at_once), desc="answering", leave=False, disable=None):
        rows = order[start : start + at_once]
        asked = [questions[i] for i in rows] * copies
        stop = _Stop(llm, [question.options for question in asked])
        prompts = [question.prompt for question in asked]
        written = llm.generate(prompts, edits, answering.max_new_tokens, stopping_criteria=[stop])
        for j, text in enumerate(written):
            texts[j // len(rows)][rows[j % len(rows)]] = text
    return [_cut(questions, of_copy) for of_copy in texts]


def _cut(questions: Sequence[Question], texts: list[str]) -> Answered:
    found, new = [], []
    for question, text in zip(questions, texts, strict=True):
        option, begin = first_label(text, question.options)
        before = text[:begin].rstrip() if option >= 0 else ""
        new.append(question._replace(prompt=question.prompt + before))
        found.append(option)
    return Answered(new, torch.tensor(found, dtype=torch.int64), texts)


class _Stop:
    """A row is done once a label stands in it and something after: until then it may grow into another word."""

    def __init__(self, llm: LLM, options: Sequence[Sequence[str]]) -> None:
        self.llm, self.options, self.start = llm, options, 0

    def __call__(self, ids: Tensor, _scores: object, **_more: object) -> Tensor:
        self.start = self.start or ids.shape[1] - 1
        texts = self.llm.tokenizer.batch_decode(ids[:, self.start :], skip_special_tokens=True)
        done = []
        for text, options in zip(texts, self.options, strict=True):
            option, begin = first_label(text, options)
            done.append(option >= 0 and len(text) > begin + len(options[option].strip()))
        return torch.tensor(done, device=ids.device)
