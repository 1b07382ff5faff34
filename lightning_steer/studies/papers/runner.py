"""Run commands of the command line in this process, and keep what each finished run gave."""

import contextlib
import gc
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lightning_steer.cli import CLI
from lightning_steer.escapes import say
from lightning_steer.files import is_regular
from lightning_steer.report.files import write_json
from lightning_steer.statistics import estimate

QUIET = ("--trainer.enable_progress_bar=false", "--overwrite=true")


class Runner:
    """Runs an experiment's cells; a finished one is kept and not run again.

    Args:
        name: the experiment's; results go to ``logs/papers/NAME/RUN/result.json``.
        more: options that are added to every command; those of the model only where something is steered.
    """

    def __init__(self, name: str, more: Sequence[str] = ()) -> None:
        self.name, self.more = name, list(more)
        self.folder = Path("logs/papers") / name
        self.failed: dict[str, str] = {}
        """Sentences on runs that could not be finished, by run."""

    def run(
        self,
        run: str,
        configs: Sequence[str],
        options: Sequence[str],
        read: Callable[[Any], Mapping[str, Any]],
        commands: Sequence[str] = ("fit", "test"),
    ) -> dict[str, Any] | None:
        """Return what ``read`` makes of the module after the last command; None if the run could not be finished.

        Args:
            run: the run's name.
            configs: configuration files, the later one wins.
            options: of every command.
            read: takes the Lightning module, returns plain values.
            commands: what is run, in turn.
        """
        steers = "Steering" if "test" in commands and not any("probe" in name for name in configs) else ""
        more = [option for option in self.more if steers or not option.startswith("--model")]
        words = [*(f"--config={name}" for name in configs), *options, *more]
        kept, path = {"options": words, "statistics": estimate.VERSION}, self.folder / run / "result.json"
        if is_regular(path) and (record := json.loads(path.read_text())).get("of") == kept:
            return record["result"]
        say(f"{self.name}: {run}")
        try:
            for command in commands:
                with contextlib.redirect_stdout(io.StringIO()):
                    module = CLI([command, *words, f"--experiment=papers/{self.name}", f"--run={run}", *QUIET]).model
            result = dict(read(module))
        except (ValueError, OSError) as error:  # of the user: another cell may still run
            self.failed[run] = " ".join(str(error).split())
            say(f"lightning_steer: {run}: {self.failed[run]}", error=True)
            return None
        finally:
            module = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        write_json(path, {"of": kept, "result": result})
        return json.loads(path.read_text())["result"]


def short(model: str) -> str:
    """Return a model's name as a part of a run's name."""
    return model.rstrip("/").rpartition("/")[2]


def depth(model: str) -> int:
    """Return the number of decoder blocks, from the configuration alone."""
    from lightning_steer.lm import loading
    from lightning_steer.plan.blank import located

    return loading.configuration(str(located(model))).get_text_config().num_hidden_layers
