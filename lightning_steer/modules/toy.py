"""Training of the toy network on all attributes of a sample together."""

import math
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassExactMatch

from lightning_steer import numbers
from lightning_steer.data.base import data_of
from lightning_steer.data.toy.module import ToyLabelDataModule
from lightning_steer.data.toy.world import ToyLabelledBatch
from lightning_steer.errors import UserError
from lightning_steer.networks.mlp import MLP, Residual
from lightning_steer.numbers import ranged
from lightning_steer.runs.provenance import of_training, precision
from lightning_steer.runs.traced import TracedModule


class ToyClassifier(TracedModule):
    """An MLP with one linear classifier per attribute; its input and output sizes follow from the data.

    Args:
        widths: sizes of the layers.
        residual: how the input by-passes the layers on its way to the LayerNorm.
        learning_rate: peak of the one-cycle schedule (warm-up, then cosine to zero).
        warm_up: share of the steps until the peak.
        betas: AdamW's decay rates; a short second memory trains the deep path faster.
        weight_decay: AdamW's decoupled weight decay.
    """

    @ranged
    def __init__(
        self,
        widths: tuple[int, ...] = (512, 512, 256, 512),
        residual: Residual = "projection",
        learning_rate: float = 2e-3,
        warm_up: float = 0.03,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        if not widths or not 0 <= warm_up <= 1:
            raise UserError(f"widths name at least one layer and warm_up is a share, not {list(widths)}, {warm_up:g}")
        self.widths, self.residual = tuple(widths), residual
        self.learning_rate, self.warm_up, self.betas, self.weight_decay = learning_rate, warm_up, betas, weight_decay

    def configure_model(self) -> None:
        """Build the network for the data's world; called by the trainer, on the right device."""
        if hasattr(self, "network"):
            return
        data = data_of(self.trainer, ToyLabelDataModule)
        if not isinstance(data, ToyLabelDataModule):  # pairs have x and y too, but lack the value that is steered to
            raise UserError(
                f"ToyClassifier learns from the labelled samples of a ToyLabelDataModule, not from a "
                f"{type(data).__name__}"
            )
        world = data.world
        rows = [world.inputs, *self.widths, world.attributes * world.values]
        numbers.fits(f"widths {list(self.widths)}", sum(a * b for a, b in pairwise(rows)), 4)
        self.built = {
            "inputs": world.inputs,
            "attributes": world.attributes,
            "values": world.values,
            "widths": self.widths,
            "residual": self.residual,
        }
        self.world = world.identity
        self.network = MLP(**self.built)
        network = {"model": "the toy network", "precision": precision(self.network)}
        settings, data = {**self.built, "world": self.world}, data_of(self.trainer, ToyLabelDataModule)
        self.trace(of_training(network, type(self).__name__, settings, data))
        measures = {
            "accuracy": MulticlassAccuracy(world.values, average="micro"),
            "exact": MulticlassExactMatch(world.values),
        }
        self.val_metrics = MetricCollection(measures, prefix="val/")
        self.test_metrics = MetricCollection(measures, prefix="test/").clone()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x [B, inputs] -> logits [B, attributes, values]``."""
        return self.network(x)

    def training_step(self, batch: ToyLabelledBatch, _batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(
            self(batch.x).mT, batch.y
        )  # values before attributes is several times faster
        interval = cast(Any, self.trainer).log_every_n_steps
        if (self.global_step + 1) % interval == 0:  # log only when a logger writes
            self.log("train/loss", loss, batch_size=len(batch.x))
        return loss

    def validation_step(self, batch: ToyLabelledBatch, _batch_idx: int) -> None:
        self._measure(batch, self.val_metrics, "val/loss")

    def test_step(self, batch: ToyLabelledBatch, _batch_idx: int) -> None:
        self._measure(batch, self.test_metrics, "test/loss")

    def predict_step(self, batch: ToyLabelledBatch, _batch_idx: int) -> Tensor:
        """Return the value read for every attribute, ``[B, attributes]``."""
        return self(batch.x).argmax(-1)

    def _measure(self, batch: ToyLabelledBatch, metrics: MetricCollection, loss_name: str) -> None:
        logits = self(batch.x)
        metrics.update(logits.argmax(-1), batch.y)
        loss = nn.functional.cross_entropy(logits.mT, batch.y)
        self.log(loss_name, loss, batch_size=len(batch.x), sync_dist=True)
        self.log_dict(metrics, batch_size=len(batch.x), prog_bar=True)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay, fused=True
        )
        steps = self.trainer.estimated_stepping_batches
        if not 0 < steps < math.inf:
            raise UserError(
                f"the learning rate falls towards the last step, and with max_epochs {self.trainer.max_epochs} and "
                f"max_steps {self.trainer.max_steps} there is none: set trainer.max_epochs to 1 or more"
            )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=self.learning_rate,
            total_steps=int(steps),
            pct_start=self.warm_up,
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the network's shape and world too, which loading needs."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["network"], checkpoint["world"] = self.built, self.world
