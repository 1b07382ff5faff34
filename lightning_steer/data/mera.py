"""Prompts with known answers, in splits to learn the errors from, to calibrate the steering, and to judge it."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from lightning_steer.data.batches import share
from lightning_steer.data.mera_tasks import Example, Sizes, Task, check_labels
from lightning_steer.data.questions import Graded
from lightning_steer.data.splits import stratified
from lightning_steer.llm import LLM
from lightning_steer.tokens import Question, continuation


class GradedBatches(Dataset[Graded]):
    """Item j is the j-th batch of a split, as near to ``size`` rows as equal batches can be.

    Args:
        examples: the split, in order.
        options: the written variants of all labels, the same for every prompt.
        label_of: the label of each.
        size: rows in a batch, about.
        own: the rows of a batch that this process takes.
    """

    def __init__(
        self, examples: Sequence[Example], options: tuple[str, ...], label_of: Sequence[int], size: int, own: slice
    ) -> None:
        self.examples, self.options, self.label_of, self.own = examples, options, torch.tensor(label_of), own
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
        return Graded(questions, torch.tensor([e.label for e in mine], dtype=torch.int64), self.label_of, row)


def _as_it_is(batch: Graded) -> Graded:
    """A loader's own conversion would turn the options into a list."""
    return batch


class MERADataModule(L.LightningDataModule):
    """Labelled prompts: rows to learn a model's errors from, rows that choose the threshold, and held-out rows.

    Prompts that occur more than once are taken once, so that no split has a row of another.

    Args:
        source: where the prompts come from: SmsSpam, FinanceTask, MMLU, PocketTask, or your own LabelledFile.
        train: rows to learn from; null for the task's default, 3,000 as a rule.
        calibration: rows that choose the threshold; null for 250.
        test: held-out rows; null for the task's default.
        leading_blank: the answer follows the prompt after a blank; set it to false behind most chat templates.
        batch_size: rows in a batch, about, shared out over all processes.
        seed: draws the splits.
    """

    def __init__(
        self,
        source: Task,
        train: int | None = None,
        calibration: int | None = None,
        test: int | None = None,
        leading_blank: bool = True,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_labels(source.labels)
        given = Sizes(train or source.sizes.train, calibration or source.sizes.calibration, test or source.sizes.test)
        if min(batch_size, *given) < 1 or 0 in (train, calibration, test):
            raise ValueError(f"batch_size and the sizes of the splits are positive, not {batch_size} and {given}")
        self.source, self.sizes, self.batch_size, self.seed = source, given, batch_size, seed
        self.task, self.paired, self.labels = source.name, False, tuple(source.labels)
        blank = " " if leading_blank else ""
        written = [dict.fromkeys(blank + v.strip() for v in variants) for variants in source.labels.values()]
        self.options = tuple(option for variants in written for option in variants)
        self.label_of = tuple(k for k, variants in enumerate(written) for _ in variants)
        self._checked = False

    def setup(self, stage: str | None = None) -> None:
        """Read or generate, and split; does nothing the second time. Raises ValueError or FileNotFoundError."""
        if hasattr(self, "train"):
            return
        found = list({e.prompt: e for e in reversed(self.source.examples(self.drawn, self.seed))}.values())[::-1]
        for k, label in enumerate(self.labels):
            if not any(e.label == k for e in found):
                raise ValueError(f"no row of {self.task} has the label {label!r}: leave it out, or bring rows of it")
        parts = stratified([e.label for e in found], self.sizes, self.seed)
        self.train, self.calibration, self.test = ([found[i] for i in part] for part in parts)

    @property
    def drawn(self) -> int:
        """Prompts that are generated: some more than needed, as a few may come twice."""
        return sum(self.sizes) + sum(self.sizes) // 10

    def check_tokens(self, llm: LLM, prompts: int = 3) -> None:
        """See that the model can tell the labels apart; raises ValueError naming two that it cannot, or one it has not.

        Labels are compared as the tokens of their whole continuations. Two of different labels may not be equal, nor
        may one begin the other: its probability would include the other's.
        """
        for example in self.train[:prompts]:
            prompt = llm.prompt(example.prompt)
            tokens = [continuation(llm.tokenizer, prompt, option, not llm.chat)[1] for option in self.options]
            unknown = llm.tokenizer.unk_token_id
            for i, (option, ids) in enumerate(zip(self.options, tokens, strict=True)):
                if unknown is not None and unknown in ids:
                    raise ValueError(
                        f"{option!r} is no token of {llm.name}: write the label {self._label(i)!r} otherwise"
                    )
                for j, other in enumerate(tokens):
                    if self.label_of[i] != self.label_of[j] and other[: len(ids)] == ids:
                        raise ValueError(
                            f"{llm.name} reads {option!r} as the beginning of {self.options[j]!r}, so the labels "
                            f"{self._label(i)!r} and {self._label(j)!r} collide: write them otherwise"
                        )
        self._checked = True

    def _label(self, option: int) -> str:
        return self.labels[self.label_of[option]]

    def batches(self, examples: Sequence[Example]) -> GradedBatches:
        """A split in batches; this process's rows of them."""
        return GradedBatches(examples, self.options, self.label_of, self.batch_size, share(self))

    def _loader(self, examples: Sequence[Example]) -> DataLoader[Graded]:
        backbone = getattr(self.trainer and self.trainer.lightning_module, "backbone", None)
        if not self._checked and isinstance(backbone, LLM) and backbone.tokenizer is not None:
            self.check_tokens(backbone)
        as_it_is: Any = _as_it_is
        return DataLoader(self.batches(examples), batch_size=None, collate_fn=as_it_is)

    def train_dataloader(self) -> DataLoader[Graded]:
        return self._loader(self.train)

    def val_dataloader(self) -> DataLoader[Graded]:
        return self._loader(self.calibration)

    def test_dataloader(self) -> list[DataLoader[Graded]]:
        """Held-out rows, and the rows that were learned from."""
        return [self._loader(self.test), self._loader(self.train)]

    def predict_dataloader(self) -> DataLoader[Graded]:
        return self._loader(self.test)
