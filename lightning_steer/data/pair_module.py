"""Pairs of texts in three parts: to fit a method to, to choose its strength on, and held out."""

from abc import abstractmethod
from typing import Any

from torch.utils.data import DataLoader

from lightning_steer.data.base import PairBatch, SteeringDataModule
from lightning_steer.data.batches import share
from lightning_steer.data.pair_batches import PairBatches
from lightning_steer.data.readable import PARTS, Reader, TooLong, check_pairs, language_model
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice

FIT, SELECT, TEST = range(3)


class PairDataModule(SteeringDataModule):
    """What the data modules of stereotypes and of behaviours share.

    Args:
        too_long: how to treat rows longer than the model's context; see :class:`lightning_steer.data.readable.Reader`.
        batch_size: examples in a batch, shared out over all processes.
        ends: the options to move away from and towards.
    """

    paired = True
    reader: Reader

    def __init__(self, too_long: TooLong, batch_size: int, ends: tuple[int, int]) -> None:
        super().__init__()
        self.reader, self.batch_size = Reader(too_long, PARTS), batch_size
        self.negative, self.positive = ends
        self._read_by: LLM | None = None

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Read and split the examples, once: calls :meth:`keep`."""

    @abstractmethod
    def choices(self, example: Any) -> MultipleChoice:
        """Return an example as its prompt and the continuations that are scored."""

    @abstractmethod
    def with_prompt(self, example: Any, prompt: str) -> Any:
        """Return an example with another prompt."""

    def keep(self, parts: list[list[Any]], clusters: list[list[int]], reference_texts: list[str]) -> None:
        """Take the examples of each part, their clusters, and the texts that steering should leave alone."""
        self._whole = self.parts, self.clusters, self._reference_texts = parts, clusters, reference_texts

    @property
    def reference_texts(self) -> list[str]:
        """Return texts that steering should leave alone."""
        self.setup()
        return self._reference_texts

    def read_by(self, llm: LLM) -> None:
        """Check with a loaded model that all parts can be read; raises ValueError naming a row."""
        if llm is self._read_by:
            return
        self.setup()
        parts, clusters, reference = self._whole
        texts = [[(e.id, self.choices(e)) for e in part] for part in parts]
        readable = self.reader.read(llm, texts, whole=(self.negative, self.positive))
        self._reference_texts = self.reader.reference_texts(llm, reference)
        self.parts = [[self.with_prompt(parts[k][i], q.prompt) for i, q in rows] for k, rows in enumerate(readable)]
        self.clusters = [[clusters[k][i] for i, _ in rows] for k, rows in enumerate(readable)]
        pairs = ((e.id, self.choices(e)) for part in self.parts for e in part)
        check_pairs(llm, pairs, self.negative, self.positive)
        self._read_by = llm

    def _loader(self, part: int) -> DataLoader[PairBatch]:
        self.setup()
        llm = language_model(self)
        if llm is not None:
            self.read_by(llm)
        questions, cluster = [self.choices(example) for example in self.parts[part]], self.clusters[part]
        return PairBatches(questions, self.negative, self.positive, cluster, self.batch_size, share(self)).loader()

    def train_dataloader(self) -> DataLoader[PairBatch]:
        return self._loader(FIT)

    def val_dataloader(self) -> DataLoader[PairBatch]:
        return self._loader(SELECT)

    def test_dataloader(self) -> list[DataLoader[PairBatch]]:
        """Return loaders of the held-out rows and of those that the method was fitted to."""
        return [self._loader(TEST), self._loader(FIT)]

    def predict_dataloader(self) -> DataLoader[PairBatch]:
        return self._loader(TEST)
