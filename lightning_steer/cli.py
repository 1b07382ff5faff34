"""The command line: LightningCLI over three lists (modules, data, methods), and one folder for every run.

One class and one file: LightningCLI calls its methods by turns, and they hand on where the run is.
"""

import inspect
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn, cast

import lightning as L
import yaml
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import distributed

from lightning_steer import (
    class_names,
    config_files,
    data,
    experiment_help,
    methods,
    metrics,
    modules,
    networks,
    numbers,
    vector_options,
)
from lightning_steer.cache import fingerprints
from lightning_steer.data.base import SteeringDataModule
from lightning_steer.errors import UserError, sentences
from lightning_steer.escapes import say
from lightning_steer.files import check_folder, check_no_links
from lightning_steer.lm.language_model import LLM
from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.modules.predictions import Predictions
from lightning_steer.quiet import hush
from lightning_steer.report import card
from lightning_steer.resources import resource_path
from lightning_steer.runs import saving
from lightning_steer.runs.late_record import LateRecord
from lightning_steer.runs.progress_lines import ProgressLines
from lightning_steer.runs.saving import BestCheckpoint, UnfinishedCheckpoint, WholeCheckpoint
from lightning_steer.runs.traced import TracedModule

LISTS = {
    key: {name: getattr(listed, name) for name in listed.__all__}
    for key, listed in {"method": methods, "model": modules, "data": data, "evaluation": metrics}.items()
} | {"backbone": {"ToyBackbone": networks.ToyBackbone, "LLM": LLM}}
"""What can be named in a configuration by its bare class name: whatever is listed here is imported, and so known."""
DEFAULTS = "configs/defaults.yaml"
STEPS = {"fit": "training_step", "validate": "validation_step", "test": "test_step", "predict": "predict_step"}
"""What a module must define for each command."""
NAME = r"[\w-][\w.-]*"
"""A part of a run's name, and the name of its checkpoint: a plain file name on every system."""


class ConfigParser(LightningArgumentParser):
    """Says in one sentence what was wrong with the arguments; half an option's name is a misspelling."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with code 2."""
        options = {part for action in self._actions for part in action.dest.split(".")}
        for key, listed in LISTS.items():
            options |= {option for known in listed.values() for option in inspect.signature(known).parameters}
            options.add(key)
        classes = class_names.by_setting(known for listed in LISTS.values() for known in listed.values())
        classes |= {key: list(LISTS[key]) for key in ("model", "data", "backbone")}
        self.exit(2, f"lightning_steer: {sentences.of_parser(message, classes, sorted(options))}\n")


class CLI(LightningCLI):
    """``fit | validate | test | predict``: ``configs/defaults.yaml`` is read first, then each ``--config`` in turn.

    A run is called ``EXPERIMENT/RUN``; it writes to ``logs/EXPERIMENT/RUN`` and ``checkpoints/EXPERIMENT/RUN`` and
    nowhere else; letters of any alphabet are letters, and any text is a folder's name. Of an option that is given twice
    the last counts, as of two configurations. ``test``, ``validate`` and ``predict`` take the best checkpoint that
    ``fit`` left there.
    """

    def __init__(self, args: list[str] | None = None) -> None:
        hush()
        config_files.read_as_meant()
        given = vector_options.spelled_out(sys.argv[1:] if args is None else args)
        self.arguments = config_files.with_packaged(given)
        super().__init__(
            L.LightningModule,
            SteeringDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            save_config_kwargs={"overwrite": True},
            parser_class=ConfigParser,
            parser_kwargs={
                name: {
                    "default_config_files": [resource_path(DEFAULTS)],
                    "usage": experiment_help.USAGE.format(name=name),
                    "description": experiment_help.PAGES[name].summary,
                    "add_help": False,  # there are two kinds
                }
                for name in self.subcommands()
            },
            save_config_callback=LateRecord,
            args=self.arguments,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return only the requested subcommand: building all four parsers is slow."""
        subcommands = LightningCLI.subcommands()
        return {name: skip for name, skip in subcommands.items() if name in self.arguments[:1]} or subcommands

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The two kinds of help, the run's name, and whether a mismatch is accepted."""
        parser.add_argument("-h", "--help", action=experiment_help.ShortHelp, help="the options that users set most")
        parser.add_argument("--help-all", action="help", help="all options")
        parser.add_argument(
            "--experiment",
            type=str,
            default="experiment",
            help="first part of the run's name; logs/EXPERIMENT/RUN and checkpoints/EXPERIMENT/RUN are written",
        )
        parser.add_argument(
            "--run", type=str, default="run", help="second part of the run's name, usually the name of the method"
        )
        parser.add_argument(
            "--accept_mismatch",
            type=bool,
            default=False,
            help="use a checkpoint although it was fitted to another model, method, layer or data; the report says so",
        )
        parser.add_argument(
            "--overwrite",
            type=bool,
            default=False,
            help="replace a finished run of this name that has another model, method, layer or data; one that has the "
            "same is replaced in any case",
        )
        parser.add_argument(
            vector_options.OPTION,
            type=str | None,
            default=None,
            help="for predict: a vector file, as steer and export write it; the responses are of its model, steered as "
            "it says, unless other options say otherwise",
        )
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.monitor": "val/loss",
                "checkpoint.enable_version_counter": False,
            }
        )

    def before_instantiate_classes(self) -> None:
        """Give the run its folders."""
        config = self.config[str(self.subcommand)]
        self.name = f"{config.experiment}/{config.run}"
        if not re.fullmatch(rf"{NAME}(/{NAME})+", self.name) or {"None", "True", "False"} & set(self.name.split("/")):
            raise UserError(
                f"a run's name is made of letters, digits, '_', '-' and '.', as a path below logs/, not {self.name!r}"
            )
        if not re.fullmatch(NAME, str(config.checkpoint.filename)):
            raise UserError(
                f"checkpoint.filename must be made of letters, digits, '_', '-' and '.', without the folder and "
                f".ckpt, not {config.checkpoint.filename!r}"
            )
        if not hasattr(config.trainer, "logger"):
            raise UserError(f"trainer must hold settings as `key: value`, not {config.trainer!r}")
        if config.trainer.max_steps == 0:
            raise UserError("trainer.max_steps must be at least 1, or -1 for no limit, not 0")
        self.save_config_kwargs["config_filename"] = f"{self.subcommand}.yaml"
        logger = config.trainer.logger
        if hasattr(logger, "init_args") and "name" in logger.init_args and logger.init_args.name is None:
            logger.init_args.name = self.name
        if config.trainer.default_root_dir is None:  # where reports go without a logger
            config.trainer.default_root_dir = f"logs/{self.name}"
        if config.checkpoint.dirpath is None:
            config.checkpoint.dirpath = f"checkpoints/{self.name}"
        self.folder = Path(config.checkpoint.dirpath)
        for folder in (self.folder, Path("logs", self.name), Path(config.trainer.default_root_dir)):
            check_folder(folder)
            check_no_links(folder)  # Lightning and TensorBoard would write through one

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """With a checkpoint to resume from."""
        if self.subcommand == "fit":
            self.trainer_defaults["callbacks"] = [UnfinishedCheckpoint(self.folder)]
        if self.subcommand == "predict" and isinstance(self.model, modules.SteeringAdaptor):
            self.trainer_defaults["callbacks"] = [Predictions()]
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError, RuntimeError) as error:
            parameters = inspect.signature(L.Trainer).parameters
            settings = self.config[str(self.subcommand)].trainer.items()
            changed = [f"{k}={v}" for k, v in settings if k in parameters and v not in (None, parameters[k].default)]
            message = " ".join(re.sub(r" object at 0x\w+", "", str(error)).split())
            raise UserError(f"{message} (trainer settings: {', '.join(changed)})") from error
        if not sys.stderr.isatty() and self.config[str(self.subcommand)].trainer.enable_progress_bar is not False:
            cast(Any, trainer).callbacks.append(ProgressLines())
        for callback in cast(Any, trainer).callbacks:
            if isinstance(callback, LateRecord):
                callback.withhold(trainer)
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        """Name the folders where a library that could not write does not say which file it was."""
        hook, threading.excepthook = threading.excepthook, _quiet_writer
        try:
            with fingerprints.remembered():
                super()._run_subcommand(subcommand)
        except OSError as error:
            if error.filename is not None or error.errno is None:
                raise
            raise OSError(
                f"{os.strerror(error.errno)}: a file below logs/{self.name} or {self.folder} could not be written: "
                "make room, then give the same command again"
            ) from error
        finally:
            threading.excepthook = hook

    def instantiate_classes(self) -> None:
        """Tell the module whether a checkpoint of another provenance is accepted."""
        super().instantiate_classes()
        commands = [name for name, step in STEPS.items() if is_overridden(step, self.model)]
        if self.subcommand not in commands:
            raise UserError(f"{type(self.model).__name__} is not for {self.subcommand}: use {' or '.join(commands)}")
        if isinstance(evaluation := getattr(self.model, "evaluation", None), Evaluation):
            evaluation.check_subject(self.datamodule)  # before the data are read, or a cache is filled
        if isinstance(self.model, (TracedModule, modules.Responses)):
            self.model.accept_mismatch = self.config[str(self.subcommand)].accept_mismatch

    def before_fit(self) -> None:
        """Go on with the very same fit if it was killed."""
        config = self.config_init[str(self.subcommand)]
        settings = yaml.safe_load(self.parser.dump(self.config, skip_none=False))[self.subcommand]
        for name in ("accept_mismatch", "overwrite"):
            del settings[name]  # they say nothing of what is fitted
        self.record, unfinished_path = yaml.safe_dump(settings), self.folder / "unfinished.ckpt"
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, WholeCheckpoint):
                callback.record = self.record
            if isinstance(callback, BestCheckpoint):
                callback.overwrite = config.overwrite
        if config.ckpt_path is not None:
            saving.load(Path(config.ckpt_path))  # refused before a library reads it
        unfinished = saving.record_of(unfinished_path)
        if config.ckpt_path is None and unfinished == self.record:
            print(f"Going on with the unfinished run {self.name} from {unfinished_path}.")
            config.ckpt_path = str(unfinished_path)
        elif config.ckpt_path is None and unfinished_path.is_file():
            reason = "cannot be read" if unfinished is None else "had another configuration"
            print(f"The unfinished run in {self.folder} {reason}: starting anew.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Refuse numbers that are not finite or out of their range before anything is made with them."""
        super().parse_arguments(parser, args)
        subcommand = self.config["subcommand"]
        numbers.check(yaml.safe_load(parser.dump(self.config, skip_none=False, skip_validation=True))[subcommand])

    def _parse_ckpt_path(self) -> None:
        """Hyper-parameters in a checkpoint never override the command line, as they would in LightningCLI."""

    def before_test(self) -> None:
        """Take the best checkpoint, unless the module reads by itself what fit has left."""
        if (
            getattr(self.model, "needs_checkpoint", True)
            or self.config_init[str(self.subcommand)].ckpt_path is not None
        ):
            self.before_validate()

    before_predict = before_test

    def before_validate(self) -> None:
        """Take the best checkpoint."""
        config = self.config_init[str(self.subcommand)]
        if config.ckpt_path is None:
            config.ckpt_path = str(self.folder / "best.ckpt")
        if not Path(config.ckpt_path).is_file():
            raise FileNotFoundError(f"no checkpoint at {config.ckpt_path}: run fit first, or give --ckpt_path")
        saving.load(Path(config.ckpt_path))

    def after_fit(self) -> None:
        """Say where the result is."""
        if not self.trainer.is_global_zero or self.trainer.interrupted:
            return
        best = self.folder / f"{self.config[str(self.subcommand)].checkpoint.filename}.ckpt"
        if saving.record_of(best) == self.record:
            print(f"Fitted {self.name}: {best}")
        else:
            print(
                f"Nothing was kept of this fit of {self.name}, as no validation was run to its end; {best} "
                + ("is of an earlier fit." if best.is_file() else "was not written.")
            )

    def test(self, **kwargs: Any) -> None:
        """Test, then print the report instead of Lightning's table of bare numbers."""
        self.trainer.test(**{**kwargs, "verbose": False})
        report = getattr(self.model, "report", None)
        if not self.trainer.is_global_zero:
            return
        if report is None:
            print("  ".join(f"{name} {value:.4f}" for name, value in self.trainer.callback_metrics.items()))
        else:
            say(card.text(report))
            print(f"Report and figures: {self.model.folder}/report.md")


def _quiet_writer(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer thread hands its OSError on to the main thread, which says what is wrong."""
    if not issubclass(failure.exc_type, OSError):
        sys.__excepthook__(failure.exc_type, failure.exc_value or failure.exc_type(), failure.exc_traceback)


def main(arguments: list[str]) -> int:
    """Run a command of an experiment; returns 0, or raises."""
    CLI(arguments)
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()  # its threads may abort a process that ends before them
    return 0
