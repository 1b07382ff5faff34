"""Labelled prompts as batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_steer.data.labelled_rows import Example
from lightning_steer.data.observations import Observations
from lightning_steer.data.questions import Graded
from lightning_steer.lm.tokens import Question


class GradedBatches(Dataset[Graded]):
    """Item j is the j-th batch of a split, as near to ``size`` rows as equal batches can be.

    Args:
        examples: the split, in order.
        options: the written variants of all labels, the same for every prompt.
        label_of: the label of each.
        groups: numbers of the groups that rows are not independent in; None if no source names any.
        size: rows in a batch, about.
        own: the rows of a batch that this process takes.
        seen: what was recorded of the split; null if nothing was.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        options: tuple[str, ...],
        label_of: Sequence[int],
        groups: Mapping[str, int] | None,
        size: int,
        own: slice,
        seen: Observations | None = None,
    ) -> None:
        self.examples, self.options, self.own, self.seen = examples, options, own, seen
        self.label_of = torch.tensor(label_of)
        self.group = None if groups is None else torch.tensor([groups[str(e.group)] for e in examples])
        count = max(1, round(len(examples) / size))
        self.edges = [round(j * len(examples) / count) for j in range(count + 1)]  # no small rest for some processes

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __getitem__(self, j: int) -> Graded:
        if not 0 <= j < len(self):
            raise IndexError(f"batch {j} does not exist: there are {len(self)}")
        row = torch.arange(self.edges[j], self.edges[j + 1])[self.own]
        mine = [self.examples[i] for i in row.tolist()]
        questions = [Question(example.prompt, self.options) for example in mine]
        y, seen = torch.tensor([e.label for e in mine], dtype=torch.int64), self.seen and self.seen.at(row)
        return Graded(questions, y, self.label_of, row, seen, None if self.group is None else self.group[row])

    def loader(self) -> DataLoader[Graded]:
        """Batch after batch, in order."""
        as_it_is: Any = _as_it_is
        return DataLoader(self, batch_size=None, collate_fn=as_it_is)


def _as_it_is(batch: Graded) -> Graded:
    """A loader's own conversion would turn the options into a list."""
    return batch
