"""Batches of language tasks: questions for the model, and texts that a method is fitted to."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_steer.lm.tokens import MultipleChoice


class Observed(NamedTuple):
    """The unsteered model's scores and activations on questions, as ``Backbone.observe`` returns them."""

    scores: Tensor
    """``[B, options]`` log-probabilities."""
    h: dict[str, Tensor]
    """``{site: [B, d]}`` activations at the tokens that are read."""


class LabelledBatch(NamedTuple):
    """Questions with known right answers; the model's error decides which rows are negatives."""

    x: list[MultipleChoice]
    """Prompts with the written variants of all labels as options, the same options in every row."""
    y: Tensor
    """``[B]`` int64: the right label."""
    label_of: Tensor
    """``[options]`` int64: the label that each option is a variant of."""
    row: Tensor
    """``[B]`` int64: row numbers in the split, independent of batches and processes."""
    seen: Observed | None = None
    """Recorded observations of these rows; None if the model has to run."""
    group: Tensor | None = None
    """``[B]`` int64: each row's group of dependent rows; None if all rows are independent."""

    @property
    def content(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return the columns of each row's input, and of its fitting target."""
        return (self.x,), (self.y, [self.label_of.tolist()] * len(self.x))


class PairBatch(NamedTuple):
    """Pairs of texts that differ in the concept to steer, and questions that measure the effect."""

    x: list[MultipleChoice]
    """Prompts with the continuations that are scored."""
    negative: list[MultipleChoice]
    """Negative texts, whose activations steering moves away from: a prompt and one option each."""
    positive: list[MultipleChoice]
    """Positive texts, whose activations steering moves towards."""
    y: Tensor
    """``[B]`` int64: each row's cluster of dependent rows (target term, prompt)."""
    row: Tensor
    """``[B]`` int64: row numbers in the split."""

    @property
    def values(self) -> Tensor:
        """Return ``[B, 2, 1]`` int64: 0 for every negative text, 1 for every positive one."""
        return torch.tensor([0, 1], device=self.row.device).view(1, 2, 1).expand(len(self.row), 2, 1)

    @property
    def content(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return the columns of each row's input, and of its fitting target; clusters are numbered over all parts."""
        return (self.x,), (self.negative, self.positive)
