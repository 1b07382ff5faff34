"""Record activations on all devices: ``predict`` builds a cache."""

from contextlib import ExitStack

import lightning as L
import torch

from lightning_steer.cache import locked
from lightning_steer.data.activations import ActivationsDataModule
from lightning_steer.data.base import data_of
from lightning_steer.errors import UserError
from lightning_steer.lm.language_model import LLM


class ActivationRecorder(L.LightningModule):
    """A language model whose activations ``predict`` writes into the cache of an ``ActivationsDataModule``.

    Each process records whole shards, so the files do not depend on the number of devices. Shards that an interrupted
    run has finished are not recorded again. Rows are written to the cache and not returned, so memory does not grow.

    Args:
        backbone: the model, with the layers, the part of them and the tokens to be read.
    """

    needs_checkpoint = False

    def __init__(self, backbone: LLM) -> None:
        super().__init__()
        self.backbone = backbone
        self.strict_loading = False  # the frozen network is not part of a checkpoint
        self._lock = ExitStack()

    def configure_model(self) -> None:
        """Load the model and plan the recording; called by the trainer, in every process."""
        data = data_of(self.trainer, ActivationsDataModule)
        if not isinstance(data, ActivationsDataModule):
            raise UserError(f"activations are recorded of an ActivationsDataModule, not of a {type(data).__name__}")
        if self.trainer.precision != "32-true":  # the cache would be read as the model's own precision
            raise UserError(
                f"trainer.precision {self.trainer.precision} is not recorded: say with the backbone's dtype what it "
                "computes in"
            )
        self.backbone.check(data)
        self.building = data.build(self.backbone)
        self.backbone.requires_grad_(False).eval()

    def on_predict_start(self) -> None:
        """Find the finished shards; the first process prints what is left."""
        self._lock.close()
        if self.trainer.is_global_zero:
            self._lock.enter_context(locked(self.building.folder, wait=False))
            self.building.announce()
        self.trainer.strategy.barrier("announced")
        if not self.trainer.is_global_zero:
            self.building.look(range(self.trainer.global_rank, self.building.shards, self.trainer.world_size))

    def predict_step(self, number: int, _batch_idx: int) -> int:
        """Record and write a shard, and return its number; there may be fewer shards than processes."""
        try:
            if number < self.building.shards:
                self.building.shard(number)
        except BaseException:
            self._lock.close()
            raise
        return number

    def on_predict_end(self) -> None:
        """Report the written shards to the first process, which completes the cache."""
        if self.trainer.world_size > 1:
            by_process: list[dict[int, str]] = [{} for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(by_process, self.building.finished)
            for digests in by_process:
                self.building.finished |= digests
        if self.trainer.is_global_zero:
            cache = self.building.finish()
            self._lock.close()
            print(f"The cache in {cache.folder} is complete: {len(cache)} rows of layers {cache.layers}.")
        self.trainer.strategy.barrier("recorded")
