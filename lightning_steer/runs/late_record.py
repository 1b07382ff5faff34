"""What a run writes before its first result, written only once its model and data have turned out to be usable.

Lightning opens the loggers and saves the configuration first of all. A refused command would leave a folder behind, and
its configuration in the place of an earlier run's; and half a configuration if the disk is full.
"""

from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import Logger

from lightning_steer.files import write


class LateRecord(SaveConfigCallback):
    """Opens the loggers and saves the configuration when the first loop begins: model, data and checkpoint are read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.withheld: list[Logger] = []

    def withhold(self, trainer: L.Trainer) -> None:
        """Take the loggers from a trainer that has not begun, and hear of its beginning before other callbacks."""
        self.withheld, trainer.loggers = trainer.loggers, []
        cast(Any, trainer).callbacks.sort(key=lambda callback: callback is not self)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write nothing yet."""

    def _begin(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.withheld:
            trainer.loggers, self.withheld = self.withheld, []
        if not self.already_saved:
            self.already_saved, folder = True, Path(trainer.log_dir or trainer.default_root_dir)  # the same everywhere
            if trainer.is_global_zero:  # whole or not at all
                write(folder / self.config_filename, self.parser.dump(self.config, skip_none=False).encode())

    on_sanity_check_start = on_train_start = on_validation_start = on_test_start = on_predict_start = _begin
