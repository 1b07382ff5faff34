"""Write a steered network's log-probabilities of each held-out row into the run's log folder (``predict``)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from lightning_steer.cache.files import digest
from lightning_steer.data import readable
from lightning_steer.data.base import SteeringDataModule, data_of
from lightning_steer.report.files import write_text
from lightning_steer.runs.traced import TracedModule


class Predictions(BasePredictionWriter):
    """Writes ``predictions-RANK.jsonl``, a line for each row, and ``predictions.json``, which records their origin.

    A line has ``row``, the row's index in the held-out part (counting skipped rows), ``id``, its name in the data (null
    if rows have none), ``log_probabilities``, and ``of``, the first digits of the sha256 of ``predictions.json``.
    """

    def __init__(self) -> None:
        super().__init__("batch")
        self.lines: list[dict[str, Any]] = []

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
        """Store the lines of a batch; ``prediction [B, ..., options]``."""
        names = readable.held_out_names(data_of(trainer, SteeringDataModule))
        for number, values in zip(batch.row.tolist(), prediction.tolist(), strict=True):
            row, name = names[number] if names else (number, None)
            self.lines.append({"row": row, "id": name, "log_probabilities": values})

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the files atomically; a line never refers to another run's record."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        record = json.dumps(_about(trainer, pl_module), indent=1) + "\n"
        if trainer.is_global_zero:
            write_text(folder / "predictions.json", record)
            for old_path in folder.glob("predictions-*.jsonl"):  # files of a run with more processes would repeat rows
                rank = old_path.stem.removeprefix("predictions-")
                if rank.isdigit() and int(rank) >= trainer.world_size:
                    old_path.unlink()
        path = folder / f"predictions-{trainer.global_rank}.jsonl"
        fingerprint = digest(record.encode())[:12]
        write_text(path, "".join(json.dumps({**line, "of": fingerprint}) + "\n" for line in self.lines))
        print(f"{len(self.lines)} predictions: {path}")
        self.lines = []


def _about(trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
    """Return the record of the predictions: run, result, data, and differences from what it was fitted to."""
    data = data_of(trainer, SteeringDataModule)
    record: dict[str, Any] = {"checkpoint": str(trainer.ckpt_path), "task": data.task}
    if isinstance(module, TracedModule):
        all_rows = isinstance(trainer.limit_predict_batches, float) and trainer.limit_predict_batches == 1.0
        limits = [] if all_rows else ["Not all held-out rows (limit_predict_batches)."]
        record |= {"result": module.result, "sites": module.provenance.sites, "method": module.provenance.method}
        record |= {"mismatches": module.mismatches, "warnings": [*limits, *readable.notes(data)]}
    return record
