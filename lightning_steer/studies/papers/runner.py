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
from lightning_steer.lm import loading
from lightning_steer.plan.blank import located
from lightning_steer.report.files import write_json
from lightning_steer.statistics import estimate

QUIET = ("--trainer.enable_progress_bar=false", "--overwrite=true")
BACKBONE = "--model.init_args.backbone.init_args"
"""Begins every option of the model."""


class Runner:
    """Runs an experiment's cells; a finished one is kept and not run again.

    Args:
        name: the experiment's; results go to ``logs/papers/NAME/RUN/result.json``.
        more: options that are added to every command; those of ``--model`` to ``fit`` and ``test`` of a method only.
        only: names of the experiment's parts that are run; empty for all.
    """

    def __init__(self, name: str, more: Sequence[str] = (), only: Sequence[str] = ()) -> None:
        self.name, self.more, self.only = name, list(more), tuple(only)
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
        steers: bool = True,
    ) -> dict[str, Any] | None:
        """Return what ``read`` makes of the module after the last command; None if the run could not be finished.

        Args:
            run: the run's name.
            configs: configuration files, the later one wins.
            options: of every command.
            read: takes the Lightning module, returns plain values.
            commands: what is run, in turn.
            steers: whether the module is a steering adaptor, which takes the options of ``--model`` given by the user.
        """
        more = [option for option in self.more if steers or not option.startswith("--model")]
        words = [*(f"--config={name}" for name in configs), *options, *more]

        def finish() -> Mapping[str, Any]:
            for command in commands:
                with contextlib.redirect_stdout(io.StringIO()):
                    cli = CLI([command, *words, f"--experiment=papers/{self.name}", f"--run={run}", *QUIET])
            return read(cli.model)

        return self.stored(run, [*words, *commands], finish)

    def stored(self, run: str, of: Sequence[str], function: Callable[[], Mapping[str, Any]]) -> dict[str, Any] | None:
        """Return the stored result if it is of the same settings, else compute and store it; None if the user must act.

        Args:
            run: the run's name.
            of: all settings that the result depends on.
            function: computes it.
        """
        record, path = {"of": list(of), "statistics": estimate.VERSION}, self.folder / run / "result.json"
        if is_regular(path) and (old := json.loads(path.read_text())).pop("result", None) is not None and old == record:
            return json.loads(path.read_text())["result"]
        say(f"{self.name}: {run}")
        try:
            write_json(path, {**record, "result": dict(function())})
        except (ValueError, OSError) as error:  # one cell that cannot be run must not end the others
            self.failed[run] = " ".join(str(error).split())
            say(f"lightning_steer: {run}: {self.failed[run]}", error=True)
            return None
        finally:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return json.loads(path.read_text())["result"]


def short(model: str) -> str:
    """Return a model's name as a part of a run's name."""
    return model.rstrip("/").rpartition("/")[2]


def depth(model: str) -> int:
    """Return the number of decoder blocks, from the configuration alone."""
    return loading.configuration(str(located(model))).get_text_config().num_hidden_layers
