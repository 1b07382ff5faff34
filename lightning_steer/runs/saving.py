"""Checkpoints that are whole or absent, each with the record of its fit inside; ``fit.yaml`` beside it is a copy.

A record and a result that lie apart can be of two fits. So the record is part of the checkpoint, and the copy is
removed before another result takes the old one's place, and written after it: whenever a fit is killed, what is left
agrees.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
import yaml
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lightning_steer import checkpoint
from lightning_steer.errors import UserError
from lightning_steer.files import check_regular, is_regular, read_text, write
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.probes.calibrated_probe import renamed
from lightning_steer.records import Activations
from lightning_steer.runs import provenance
from lightning_steer.runs.run_lock import RunLock
from lightning_steer.runs.traced import TracedModule

RECORD = "record"
"""Entry of a checkpoint: the configuration of its fit, as YAML."""
COPY = "fit.yaml"


def load(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, without running any code in it; raises FileNotFoundError or ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}: run fit first")
    check_regular(path)
    try:
        saved = checkpoint.load(path)
        if not isinstance(saved["state_dict"], dict):
            raise TypeError("its state_dict is none")
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise UserError(
            f"{path} is not a readable checkpoint: truncated, or not written by fit ({str(error)[:100]})"
        ) from error
    return saved


def record_of(path: Path) -> str | None:
    """Return the configuration of the fit that wrote a checkpoint; None if there is none that says it."""
    try:
        record = load(path).get(RECORD)
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, str) else None


def restore(method: SteeringMethod, state: Mapping[str, Tensor], source: object) -> SteeringMethod:
    """Fill a method of which nothing is fitted with what a checkpoint has of it; raises ValueError."""
    for part in method.modules():
        if isinstance(part, SteeringMethod) and part.trained and not part.classes:  # its parameters are made by fitting
            part.fit(Activations(torch.zeros(0, part.width), torch.zeros(0), torch.zeros(0, 1).long(), False))
    state = renamed(state)
    for key, value in state.items():  # buffers of methods that were fitted have the shapes of the fit
        if key in dict(method.named_buffers()):
            part, _, name = key.rpartition(".")  # of a method inside another one
            method.get_submodule(part).register_buffer(name, torch.zeros_like(value))
    try:
        method.load_state_dict(dict(state))
    except RuntimeError as error:
        held, own = (", ".join(sorted(names)) or "nothing" for names in (state, method.state_dict()))
        raise UserError(
            f"{source}: it holds {held}, and the method has {own}; name the method that it was fitted with"
        ) from error
    return method.requires_grad_(False).eval()


class WholeCheckpoint(ModelCheckpoint):
    """Writes a checkpoint whole or not at all, with the record of the fit in it."""

    record = ""
    """The configuration of this fit, as YAML; empty outside the command line."""

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the record into the checkpoint."""
        if self.record:
            checkpoint[RECORD] = self.record

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        original_io = trainer.strategy.checkpoint_io
        if type(original_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = _WholeFiles(self.before_rename)
        else:  # a plugin of the user's, or what a kind of device needs
            self.before_rename(Path(filepath))
        try:
            super()._save_checkpoint(trainer, filepath)
        finally:
            trainer.strategy.checkpoint_io = original_io

    def before_rename(self, path: Path) -> None:
        """Make way for a checkpoint that is written, and has only to be given its name."""


class _WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place, then renames it; Lightning's own way leaves files behind if killed."""

    def __init__(self, before_rename: Callable[[Path], None]) -> None:
        self.before_rename = before_rename

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write(Path(path), content.getbuffer(), lambda: self.before_rename(Path(path)))


class UnfinishedCheckpoint(WholeCheckpoint):
    """Keeps ``unfinished.ckpt`` while a fit runs, so that a killed one can go on; a finished fit removes it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, filename="unfinished", enable_version_counter=False, save_on_train_epoch_end=True)
        self.path = folder / "unfinished.ckpt"

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing is left to resume, unless the fit was interrupted."""
        if trainer.is_global_zero and not trainer.interrupted:
            self.path.unlink(missing_ok=True)


class BestCheckpoint(WholeCheckpoint):
    """Keeps the best checkpoint of a fit, with ``fit.yaml`` beside it, and takes no other run's place unasked."""

    overwrite = False
    """Whether a finished run of another model, method or other data may be replaced."""
    lock: RunLock | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the name, and refuse to replace a finished run of something else; raises ValueError in all processes."""
        if cast(Any, trainer).fast_dev_run:
            return
        problem: str | None = None
        if trainer.is_global_zero:
            try:
                self.lock = RunLock(Path(str(self.dirpath)))
                self._check_replaced(pl_module)
            except (OSError, ValueError) as error:
                problem = str(error)
        problem = trainer.strategy.broadcast(problem)
        if problem is not None:
            raise UserError(problem)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with a fit under other settings, of which a checkpoint's own would win; raises ValueError."""
        saved_record = checkpoint.get(RECORD)
        if trainer.state.fn != TrainerFn.FITTING or not self.record or not isinstance(saved_record, str):
            return
        old, new = (_learning_settings(yaml.safe_load(text)) for text in (saved_record, self.record))
        if old != new:
            raise UserError(
                f"{trainer.ckpt_path} was fitted with other settings ({_change(old, new)}), and a fit goes on only "
                "with its own: give those, or leave --ckpt_path out, to begin anew"
            )

    def _release(self) -> None:
        lock, self.lock = self.lock, None
        if lock is not None:
            lock.release()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let others have the name."""
        super().teardown(trainer, pl_module, stage)
        self._release()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Let others have the name."""
        super().on_exception(trainer, pl_module, exception)
        self._release()

    def _check_replaced(self, pl_module: L.LightningModule) -> None:
        path = Path(str(self.dirpath), f"{self.filename}.ckpt")
        if self.overwrite or not is_regular(path):
            return
        try:
            saved = load(path)
        except ValueError:
            return  # nothing is lost with it
        differences = self._differences(saved, pl_module)
        if differences:
            raise UserError(
                f"{path} is a finished run of something else ({'; '.join(differences)}): name this one with "
                "--experiment or --run, or replace that one with --overwrite true"
            )

    def _differences(self, saved: dict[str, Any], module: L.LightningModule) -> list[str]:
        if isinstance(module, TracedModule) and provenance.KEY in saved:
            return provenance.read(saved[provenance.KEY], self.dirpath).differences(module.provenance)
        if not self.record or not isinstance(saved.get(RECORD), str):
            return []
        before, now = (yaml.safe_load(text) for text in (saved[RECORD], self.record))
        return [
            f"{key} {_change(before.get(key), now.get(key))}"
            for key in ("model", "data")
            if before.get(key) != now.get(key)
        ]

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if self.record and trainer.is_global_zero:
            write(Path(filepath).with_name(COPY), self.record.encode())

    def before_rename(self, path: Path) -> None:
        """Remove the copy of another fit's record, before that fit's result is replaced."""
        copy = path.with_name(COPY)
        check_regular(copy)
        if self.record and (not is_regular(copy) or read_text(copy) != self.record):
            copy.unlink(missing_ok=True)


FREE = {"accelerator", "strategy", "devices", "num_nodes", "logger", "callbacks", "default_root_dir", "profiler"}
FREE |= {"log_every_n_steps", "detect_anomaly", "max_time", "enable_progress_bar", "enable_model_summary"}
FREE |= {"enable_checkpointing", "limit_test_batches", "plugins"}
FREE |= {"limit_predict_batches", "benchmark", "deterministic", "fast_dev_run", "enable_autolog_hparams"}
"""Settings of a trainer that say where a fit runs and what it shows; its length is none, as schedules follow it."""


def _learning_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that change what a fit learns."""
    trainer = {name: value for name, value in (config.get("trainer") or {}).items() if name not in FREE}
    return {**{name: config.get(name) for name in ("seed_everything", "model", "data")}, "trainer": trainer}


def _change(before: Any, now: Any) -> str:
    """Describe the first entry that differs between two configurations, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            if before.get(key) != now.get(key):
                return f"{key} {_change(before.get(key), now.get(key))}"
    return f"{before!r}, not {now!r}"
