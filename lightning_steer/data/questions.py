"""Batches of language tasks: what is asked of the model, and what a method is fitted to."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_steer.lm.tokens import Question


class Observed(NamedTuple):
    """What the unsteered model did with some questions, as ``Backbone.observe`` gives it."""

    scores: Tensor
    """``[B, options]`` log-probabilities."""
    h: dict[str, Tensor]
    """``{site: [B, d]}`` at the tokens to be read."""


class Graded(NamedTuple):
    """Questions whose right answers are known: the model's own error tells which rows are unwanted."""

    x: list[Question]
    """Prompts with the written variants of all labels as options, the same options in every row."""
    y: Tensor
    """``[B]`` int64: the right label."""
    label_of: Tensor
    """``[options]`` int64: the label that each option is a variant of."""
    row: Tensor
    """``[B]`` int64: numbers of the rows in their split, whatever the batches and processes."""
    seen: Observed | None = None
    """What was recorded of these rows; null if the model is to be asked."""
    group: Tensor | None = None
    """``[B]`` int64: the group of each row, within which rows are not independent; null if all stand alone."""

    @property
    def content(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Columns of each row's input, and of what is learned from it."""
        return (self.x,), (self.y, [self.label_of.tolist()] * len(self.x))


class Contrast(NamedTuple):
    """Pairs of texts that differ in what is to be moved, and questions that show whether it was."""

    x: list[Question]
    """Prompts with the continuations that are scored."""
    unwanted: list[Question]
    """Texts whose activations are to be moved away from; one option each, what it reads after the prompt."""
    wanted: list[Question]
    """Texts whose activations are to be moved towards."""
    y: Tensor
    """``[B]`` int64: the cluster of each row (target term, behaviour), within which rows are not independent."""
    row: Tensor
    """``[B]`` int64: numbers of the rows in their split."""

    @property
    def values(self) -> Tensor:
        """``[B, 2, 1]`` int64: 0 for every unwanted text, 1 for every wanted one."""
        return torch.tensor([0, 1], device=self.row.device).view(1, 2, 1).expand(len(self.row), 2, 1)

    @property
    def content(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Columns of each row's input, and of what is learned from it; clusters are numbered over all parts."""
        return (self.x,), (self.unwanted, self.wanted)
