"""Labelled prompts as batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_steer.data.base import LabelledBatch
from lightning_steer.data.labelled_rows import LabelledExample
from lightning_steer.data.observations import Observations
from lightning_steer.lm.tokens import MultipleChoice


class LabelledBatches(Dataset[LabelledBatch]):
    """Item j is the j-th batch of a split, as near to ``size`` rows as equal batches can be.

    Args:
        examples: the rows of the split, in order.
        options: the written variants of all labels, the same for every prompt.
        label_of: the label of each option.
        groups: number of each group of dependent rows; None if the source has no groups.
        size: rows in a batch, about.
        own: the rows of a batch that this process takes.
        seen: recorded observations of the split; None if there are none.
    """

    def __init__(
        self,
        examples: Sequence[LabelledExample],
        options: tuple[str, ...],
        label_of: Sequence[int],
        groups: Mapping[str, int] | None,
        size: int,
        own: slice,
        seen: Observations | None = None,
    ) -> None:
        self.examples, self.choices, self.own, self.seen = examples, options, own, seen
        self.label_of = torch.tensor(label_of)
        self.group = None if groups is None else torch.tensor([groups[str(e.group)] for e in examples])
        count = max(1, round(len(examples) / size))
        self.edges = [round(j * len(examples) / count) for j in range(count + 1)]  # equal batches: no small last one

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __getitem__(self, j: int) -> LabelledBatch:
        if not 0 <= j < len(self):
            raise IndexError(f"batch {j} does not exist: there are {len(self)}")
        row = torch.arange(self.edges[j], self.edges[j + 1])[self.own]
        examples = [self.examples[i] for i in row.tolist()]
        questions = [MultipleChoice(example.prompt, self.choices) for example in examples]
        y, observed = torch.tensor([e.label for e in examples], dtype=torch.int64), self.seen and self.seen.at(row)
        return LabelledBatch(
            questions, y, self.label_of, row, observed, None if self.group is None else self.group[row]
        )

    def loader(self) -> DataLoader[LabelledBatch]:
        """Return a loader of the batches in order."""
        collate: Any = _identity
        return DataLoader(self, batch_size=None, collate_fn=collate)


def _identity(batch: LabelledBatch) -> LabelledBatch:
    """Return the batch unchanged; the default collation would turn the options into a list."""
    return batch
