"""The activations of a file's texts: recorded once, then read in random batches across layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_steer.cache import Build, Cache, ensure
from lightning_steer.data.base import SteeringDataModule
from lightning_steer.data.batches import Onwards, share
from lightning_steer.data.text import read
from lightning_steer.errors import UserError
from lightning_steer.files import check_folder
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.numbers import ranged
from lightning_steer.resources import resource_path


class Recorded(NamedTuple):
    """Some rows of a cache."""

    row: Tensor
    """``[B]`` row numbers, in the order of the texts."""
    h: Tensor
    """``[layers, B, d]`` float32."""


class RecordedBatches(Dataset[Recorded]):
    """Item j is a batch of a cache's rows; each epoch's batches have every row once.

    A batch depends only on j, so training can resume anywhere and run on any number of processes.

    Args:
        cache: the recorded activations.
        size: rows in a batch.
        own: the rows of a batch that this process reads.
        seed: shuffles the rows; None keeps their order.
    """

    def __init__(self, cache: Cache, size: int, own: slice, seed: int | None) -> None:
        self.cache, self.size, self.own, self.seed = cache, size, own, seed
        self.kept = (-1, np.arange(0))

    def __len__(self) -> int:
        return -(-len(self.cache) // self.size)

    def __getitem__(self, j: int) -> Recorded:
        epoch, batch = divmod(j, len(self))
        if epoch != self.kept[0]:
            order = np.arange(len(self.cache))
            shuffle = None if self.seed is None else np.random.default_rng(np.random.SeedSequence((self.seed, epoch)))
            self.kept = (epoch, order if shuffle is None else shuffle.permutation(order))
        row = torch.from_numpy(self.kept[1][batch * self.size : (batch + 1) * self.size][self.own])
        return Recorded(row, self.cache.rows(row))


class ActivationsDataModule(SteeringDataModule):
    """The activations of a file's texts, in a cache.

    ``predict`` with an ``ActivationRecorder`` records them on all devices. A module with a language model as its
    ``backbone`` records missing activations itself, on one device, before it fits; any other module reads the existing
    cache. A subclass may override ``questions`` to record other texts.

    Args:
        file: the texts, ``.jsonl`` (an object per line) or plain text (parted by blank lines).
        folder: the cache; on several machines, a folder that all of them see.
        text: column of the text, in ``.jsonl`` files.
        prompt: column of the prompt; give ``completion`` too.
        completion: column of what is read after the prompt, a leading blank included if there is to be one.
        each_token: keep a row for each token read, not a text's mean.
        dtype: ``bfloat16``, ``float32``, or ``float16``, scaled so that nothing overflows.
        texts_per_shard: texts that are recorded, written and, when interrupted, lost together; null for 1024, or 32
            if each token is kept.
        batch_size: rows in a batch when reading, shared out over all processes.
        seed: shuffles the rows for training.
    """

    @ranged
    def __init__(
        self,
        file: str,
        folder: str,
        text: str = "text",
        prompt: str | None = None,
        completion: str | None = None,
        each_token: bool = False,
        dtype: str = "bfloat16",
        texts_per_shard: int | None = None,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if (prompt is None) != (completion is None):
            raise UserError(f"give prompt and completion, or neither: prompt={prompt!r}, completion={completion!r}")
        self.file, self.folder, self.batch_size, self.seed = file, folder, batch_size, seed
        self.columns = (text,) if prompt is None or completion is None else (prompt, completion)
        self.each_token, self.dtype, self.texts_per_shard = each_token, dtype, texts_per_shard

    def questions(self) -> Sequence[MultipleChoice | str]:
        """Return the texts to record; raises FileNotFoundError or ValueError."""
        documents = read(Path(resource_path(self.file)), self.columns)
        return [MultipleChoice(document[0], document[1:]) for document in documents]

    def prepare_data(self) -> None:
        """Record missing activations if the module has a language model; ``predict`` records them itself."""
        trainer = self.trainer
        backbone = getattr(trainer and trainer.lightning_module, "backbone", None)
        if trainer is not None and trainer.state.fn != TrainerFn.PREDICTING and isinstance(backbone, LLM):
            settings = (self.each_token, self.dtype, self.texts_per_shard)
            ensure(backbone, self.questions(), self.folder, *settings, device=trainer.strategy.root_device)

    def setup(self, stage: str | None = None) -> None:
        """Open the cache; raises FileNotFoundError if nothing was recorded."""
        if stage != "predict":
            self.cache = Cache(self.folder)

    def row_parts(self) -> list[Any]:
        """Return how the rows were recorded, the same for fitting and for selection; none is held out."""
        origin = self.cache.manifest.origin
        names = ("texts", "count", "each_token", "positions", "dtype")
        recorded = {name: getattr(origin, name) for name in names}
        return [recorded, recorded, []]

    def _loader(self, seed: int | None) -> DataLoader[Recorded]:
        batches = RecordedBatches(self.cache, self.batch_size, share(self), seed)
        return DataLoader(batches, batch_size=None, sampler=None if seed is None else Onwards(len(batches)))

    def train_dataloader(self) -> DataLoader[Recorded]:
        return self._loader(self.seed)

    def val_dataloader(self) -> DataLoader[Recorded]:
        return self._loader(None)

    test_dataloader = val_dataloader

    def build(self, llm: LLM) -> Build:
        """Load the model and return the cache to fill, for a module that records on all devices."""
        check_folder(Path(self.folder))
        fresh = llm.tokenizer is None
        llm.load()
        settings = (self.each_token, self.dtype, self.texts_per_shard)
        self.building = Build(llm, self.questions(), self.folder, *settings, fresh)
        return self.building

    def predict_dataloader(self) -> DataLoader[int]:
        """Return the numbers of the shards that this process records, equally many on each process.

        Surplus numbers stand for no shard. A process without numbers would skip the loop, and the others would wait
        for it forever.
        """
        if not hasattr(self, "building"):
            raise UserError("predict records activations: give it an ActivationRecorder as its model")
        rank_slice = share(self)
        step = rank_slice.step or 1
        numbers = range(rank_slice.start or 0, -(-self.building.shards // step) * step, step)
        return DataLoader(list(numbers), batch_size=None)  # type: ignore[arg-type]
