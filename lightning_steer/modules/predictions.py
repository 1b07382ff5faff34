"""What a steered network says of each held-out row, written by ``predict`` into the run's log folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from lightning_steer.report.files import write_text


class Predictions(BasePredictionWriter):
    """Writes ``predictions-RANK.jsonl``: ``{"row": ..., "log_probabilities": [...]}``, a line for each row."""

    def __init__(self) -> None:
        super().__init__("batch")
        self.lines: list[str] = []

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Tensor,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Keep the lines of a batch; ``prediction [B, ..., options]``."""
        for row, values in zip(batch.row.tolist(), prediction.tolist(), strict=True):
            self.lines.append(json.dumps({"row": row, "log_probabilities": values}))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the file, whole or not at all."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        if trainer.is_global_zero:  # rows that more processes wrote before would stand there twice
            for other in folder.glob("predictions-*.jsonl"):
                rank = other.stem.removeprefix("predictions-")
                if rank.isdigit() and int(rank) >= trainer.world_size:
                    other.unlink()
        path = folder / f"predictions-{trainer.global_rank}.jsonl"
        write_text(path, "".join(f"{line}\n" for line in self.lines))
        print(f"{len(self.lines)} predictions: {path}")
        self.lines = []
