"""Lines with the time that is left for runs whose output goes into a file, where a bar is one endless line."""

from typing import Any

import lightning as L

from lightning_steer.progress import Progress


class ProgressLines(L.Callback):
    """Say after a batch, at most every few seconds, how far a loop is and how long the rest may take."""

    def __init__(self) -> None:
        self.progress: dict[str, Progress] = {}

    def _begin(self, trainer: L.Trainer, _module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        of = {
            "fit": _times(trainer.num_training_batches, trainer.max_epochs),
            "test": _sum(trainer.num_test_batches),
            "predict": _sum(trainer.num_predict_batches),
        }
        name = str(trainer.state.fn.value if trainer.state.fn is not None else "")
        if name in of:
            self.progress[name] = Progress(name, of[name])

    on_train_start = on_test_start = on_predict_start = _begin

    def _step(self, trainer: L.Trainer, *_batch: Any) -> None:
        if trainer.is_global_zero and trainer.state.fn is not None and trainer.state.fn.value in self.progress:
            at = f"epoch {trainer.current_epoch + 1}" if trainer.state.fn.value == "fit" else ""
            self.progress[trainer.state.fn.value].step(at=at)

    on_train_batch_end = on_test_batch_end = on_predict_batch_end = _step


def _times(batches: float, epochs: int | None) -> float | None:
    """Return the number of all batches; None if there is no end."""
    whole = batches * (epochs or 0)
    return whole if 0 < whole < float("inf") else None


def _sum(batches: list[int] | list[float]) -> float | None:
    return _times(sum(batches), 1)
