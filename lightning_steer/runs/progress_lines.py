"""Lines with the time that is left for runs whose output goes into a file, where a bar is one endless line."""

from typing import Any

import lightning as L

from lightning_steer.progress import Progress


class ProgressLines(L.Callback):
    """Say after a batch, at most every few seconds, how far a loop is and how long the rest may take."""

    def __init__(self) -> None:
        self.progress: dict[str, Progress] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count the batches of a fit."""
        self._begin(trainer, "fit", _times(trainer.num_training_batches, trainer.max_epochs))

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count the batches of a test."""
        self._begin(trainer, "test", _times(sum(trainer.num_test_batches), 1))

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count the batches of a prediction."""
        self._begin(trainer, "predict", _times(sum(trainer.num_predict_batches), 1))

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **more: Any) -> None:
        """Say how far it is, if the latest line is old enough."""
        self._step("fit", f"epoch {trainer.current_epoch + 1}")

    def on_test_batch_end(self, trainer: L.Trainer, *args: Any, **more: Any) -> None:
        """Say how far it is, if the latest line is old enough."""
        self._step("test")

    def on_predict_batch_end(self, trainer: L.Trainer, *args: Any, **more: Any) -> None:
        """Say how far it is, if the latest line is old enough."""
        self._step("predict")

    def _begin(self, trainer: L.Trainer, name: str, batches: float | None) -> None:
        if trainer.is_global_zero:
            self.progress[name] = Progress(name, batches)

    def _step(self, name: str, at: str = "") -> None:
        if name in self.progress:
            self.progress[name].step(at=at)


def _times(batches: float, epochs: int | None) -> float | None:
    """Return the number of all batches; None if there is no end."""
    whole = batches * (epochs or 0)
    return whole if 0 < whole < float("inf") else None
