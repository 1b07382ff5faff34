"""Modules whose checkpoints say what they were fitted to, and that take no other checkpoint."""

from collections.abc import Iterator, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lightning_steer.cache import fingerprints
from lightning_steer.data.base import SteeringDataModule, data_of
from lightning_steer.errors import UserError
from lightning_steer.runs.provenance import KEY, Provenance, compared, overlap, read
from lightning_steer.runs.row_keys import Limits, first_batches, held_out_rows, left_out


class TracedModule(L.LightningModule):
    """A module whose checkpoints say what they were fitted to, and that takes no other checkpoint.

    A subclass calls :meth:`trace` once its network is there, and adds ``mismatches`` and ``caveats`` to its report.
    """

    accept_mismatch = False
    """Go on with a checkpoint of another provenance; :attr:`mismatches` then says how it differs."""
    provenance: Provenance
    mismatches: list[str]

    def trace(self, record: Provenance) -> None:
        """Take the record of what this run is fitted to."""
        self.provenance, self.mismatches = record, []

    @property
    def caveats(self) -> list[str]:
        """Warnings for a report: accepted mismatches, and rows that the trainer's limits left out."""
        return [*self.mismatches, *left_out(data_of(self.trainer, SteeringDataModule))]

    def training_batches(self) -> Iterator[Any]:
        """Yield the batches that a fit reads in an epoch, for what is done outside Lightning's loop."""
        loader = data_of(self.trainer, SteeringDataModule).train_dataloader()
        return first_batches(loader, Limits.of(self.trainer).fit)

    def selection_batches(self) -> Iterator[Any]:
        """Yield the batches that a strength or a checkpoint is chosen on."""
        loader = data_of(self.trainer, SteeringDataModule).val_dataloader()
        return first_batches(loader, Limits.of(self.trainer).select)

    @property
    def result(self) -> str:
        """Fingerprint of what was learned, by which reports and predictions name it."""
        return fingerprints.of_tensors(self.learned(self.state_dict()))

    def learned(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the part of a state that is saved: all but the frozen network."""
        return {name: value for name, value in state.items() if not name.startswith("backbone.")}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the record into the checkpoint, and only what was learned."""
        checkpoint[KEY], checkpoint["state_dict"] = self.provenance.as_json(), self.learned(checkpoint["state_dict"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint with another record, or with other tensors; raises ValueError."""
        path = self.trainer.ckpt_path or "the checkpoint"
        self.provenance = self.accept(path, checkpoint.get(KEY))  # what is learned stays of these rows
        if "state_dict" in checkpoint:
            self._check_tensors(checkpoint["state_dict"])

    def accept(self, path: object, text: Any) -> Provenance:
        """Compare a result's record with this run's; returns it. Raises ValueError where they differ."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            return self._accept_resumed(path, text)
        if text is None and self.accept_mismatch:
            saved, sentences = self.provenance, [f"{path} does not say what it was fitted to."]
        else:
            saved = read(text, path)
            differences = saved.differences(self.provenance)
            if self.trainer.state.fn == TrainerFn.TESTING:
                differences += overlap(saved, held_out_rows(data_of(self.trainer, SteeringDataModule)))
            sentences = compared(path, differences, self.accept_mismatch)
        self.mismatches += sentences
        for sentence in sentences if self.trainer.is_global_zero else []:
            print(f"Mismatch accepted: {sentence}")
        return saved

    def _accept_resumed(self, path: object, text: Any) -> Provenance:
        """Return the record of a fit that goes on, its own: one result cannot be of two sets of rows."""
        try:
            differences = read(text, path).differences(self.provenance)
        except ValueError:
            differences = ["it does not say what it was fitted to"]
        if differences:
            raise UserError(
                f"{path} was fitted to something else ({'; '.join(differences)}), and a fit goes on only from its own: "
                "remove that file, or leave --ckpt_path out, to begin anew"
            )
        return self.provenance

    def _check_tensors(self, saved: Mapping[str, Tensor]) -> None:
        expected = self.learned(self.state_dict())
        if saved.keys() != expected.keys():
            names = ", ".join(sorted(saved.keys() ^ expected.keys())[:6])
            raise UserError(f"the checkpoint is of another method or number of sites: they differ in {names}")
        for key, value in expected.items():
            if saved[key].shape != value.shape:
                raise UserError(
                    f"the checkpoint's {key} has shape {list(saved[key].shape)}, but this network, site and method "
                    f"need {list(value.shape)}"
                )
