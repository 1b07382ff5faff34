"""Read an experiment's configuration without making anything of it that loads; say what its phases are."""

import importlib
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple

import yaml

from lightning_steer import cli, numbers
from lightning_steer.data import ActivationsDataModule, MERADataModule, PromptsDataModule
from lightning_steer.data.base import SteeringDataModule
from lightning_steer.errors import UserError
from lightning_steer.lm.language_model import LLM
from lightning_steer.modules import ActivationRecorder, ErrorProbe, Responses, SparseCoder, SteeringAdaptor
from lightning_steer.plan.phase import Phase, generation, scored, together
from lightning_steer.plan.phases import Work, adapted
from lightning_steer.plan.rows import Counter, DataPart, TokenRows


class Experiment(NamedTuple):
    """What a configuration asks for."""

    module: type
    settings: dict[str, Any]
    """The module's arguments, as they stand in the configuration."""
    llm: LLM
    """Not loaded."""
    data: SteeringDataModule
    name: str
    """``EXPERIMENT/RUN``."""
    epochs: int


def read(configs: Sequence[str], overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment of these files; the later one wins.

    Args:
        configs: names of configuration files.
        overrides: options of ``fit`` that win over all files, such as ``--model.backbone.llm=NAME``.

    Raises:
        ValueError: it has no language model that is steered or read.
        SystemExit: the parser has said what is wrong with it.
    """
    words = ["fit", *(f"--config={name}" for name in configs), *overrides, "--print_config"]
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            cli.CLI(words)
    except SystemExit as stop:
        if stop.code:
            raise
    config = yaml.safe_load(printed.getvalue())
    numbers.check(config)
    for part in ("model", "data"):
        if not config.get(part):
            raise UserError(f"the configuration names no {part}: give --config with a whole experiment")
    module, settings = _class(config["model"]), config["model"]["init_args"]
    backbone = settings.get("backbone")
    if not isinstance(backbone, dict) or not issubclass(_class(backbone), LLM):
        raise UserError(
            f"plan is for experiments that steer or read a language model, and {module.__name__} here has no backbone "
            "that is an LLM: see the header of the configuration for what it costs"
        )
    if issubclass(module, SteeringAdaptor) and not settings.get("method"):
        raise UserError(
            "no method was named: add one of the files in configs/methods, for example "
            "--config configs/methods/mean_difference.yaml"
        )
    epochs = config["trainer"]["max_epochs"] or 1
    return Experiment(
        module, settings, made(backbone), made(config["data"]), f"{config['experiment']}/{config['run']}", epochs
    )


def _class(entry: dict[str, Any]) -> Any:
    path, _, name = entry["class_path"].rpartition(".")
    return getattr(importlib.import_module(path), name)


def made(entry: Any) -> Any:
    """Return the object that an entry of a parsed configuration describes; of plain values the values."""
    if isinstance(entry, list):
        return [made(item) for item in entry]
    if not isinstance(entry, dict):
        return entry
    if "class_path" in entry:
        return _class(entry)(**made(entry.get("init_args") or {}))
    return {key: made(value) for key, value in entry.items()}


def work(experiment: Experiment, counter: Counter, depth: int) -> Work:
    """Return the phases of ``fit`` and ``test``, or of ``predict``, with the rows counted.

    Raises:
        ValueError: the data cannot be read, or a layer does not exist.
        OSError: the data cannot be read.
    """
    with offline():
        return _work(experiment, counter, depth)


def _work(experiment: Experiment, counter: Counter, depth: int) -> Work:
    layers, data, settings = layers_of(experiment.llm, depth), experiment.data, experiment.settings
    none, deep, batch = TokenRows([]), max(layers) + 1, experiment.llm.tokens_per_batch
    if experiment.module is ActivationRecorder and isinstance(data, ActivationsDataModule):
        rows = counter.texts(q if isinstance(q, str) else q.prompt + "".join(q.choices[:1]) for q in data.questions())
        phases = [Phase("predict: record the texts", rows.total * deep, calls=rows.batches(batch) * deep)]
        return Work(phases, [(rows, 1)], rows, len(layers), [], none, 0)
    if experiment.module is Responses and isinstance(data, PromptsDataModule):
        data.setup()
        prompts = counter.texts(prompt.text for prompt in data.prompts)
        copies = (1 + (len(settings["strengths"]) if settings["steering"] else 0)) * settings["samples"]
        new, side_by_side = settings["max_new_tokens"], min(data.batch_size, len(prompts.tokens))
        times = copies * len(data.systems) * -(-len(prompts.tokens) // side_by_side)
        phase = generation("predict: continue the prompts", TokenRows(prompts.tokens[:side_by_side]), new, depth, times)
        largest = TokenRows(sorted(prompts.tokens)[-side_by_side:] * copies)
        return Work([phase], [(prompts, 1)], none, 0, [], largest, new)
    parts = counter.parts(data)
    if experiment.module is SteeringAdaptor:
        reference = counter.texts(data.reference_texts or ())
        method = settings["method"]
        trained = _class(method).trained if isinstance(method, dict) else False
        options = (
            settings["strengths"],
            settings["random_draws"],
            min(settings["random_curve"], settings["random_draws"]),
        )
        training = experiment.epochs if trained else 0
        refitted = settings["learning_curve"] and not trained
        return adapted(parts, reference, depth, layers, len(options[0]), *options[1:], refitted, training, batch)
    return _observed(experiment, parts, depth, len(layers))


def _observed(experiment: Experiment, parts: Sequence[DataPart], depth: int, sites: int) -> Work:
    """Return the work of a module that reads and scores the rows, and steers nothing."""
    cached = isinstance(experiment.data, MERADataModule) and experiment.data.cache is not None
    times = experiment.epochs + 2 if experiment.module is SparseCoder and not cached else 1
    names = [("fit: read and score the rows", times), ("fit: validate", 1), ("test: held-out rows", 1)]
    if experiment.module is not ErrorProbe:
        names = names[:1]
    batch = experiment.llm.tokens_per_batch
    phases = [
        together(name, scored(part.questions, depth, batch), times=count)
        for (name, count), part in zip(names, parts, strict=False)
    ]
    rows = [(part.questions, 1) for part in parts]
    return Work(phases, rows, parts[0].questions, sites, [], TokenRows([]), 0)


def layers_of(llm: LLM, depth: int) -> list[int]:
    """Return the layers that a model that is not loaded will steer, counted from 0; raises ValueError."""
    for layer in llm.layers:
        if not -depth <= layer < depth:
            raise UserError(f"layer {layer} does not exist: {llm.name} has {depth}, counted from 0")
    return sorted({layer % depth for layer in llm.layers})


def disk(experiment: Experiment, rows: TokenRows, width: int, sites: int) -> tuple[str, float] | None:
    """Return the folder of the activation cache and its size in bytes; None if there is none."""
    data = experiment.data
    if isinstance(data, ActivationsDataModule):
        count = rows.total if data.each_token else len(rows.tokens)
        return data.folder, count * sites * width * (4 if data.dtype == "float32" else 2)
    if isinstance(data, MERADataModule) and data.cache is not None:
        return data.cache, len(rows.tokens) * sites * width * 4
    return None


def files(experiment: Experiment) -> list[str]:
    """Return what will be written."""
    logs, checkpoints = f"logs/{experiment.name}/", f"checkpoints/{experiment.name}/"
    if experiment.module is ActivationRecorder:
        return [f"{logs}predict.yaml"]
    if experiment.module is Responses:
        return [f"{logs}responses.jsonl, responses.md"]
    return [f"{checkpoints}best.ckpt", f"{logs}report.md, report.json, figures, events of TensorBoard"]


@contextmanager
def offline() -> Iterator[None]:
    """Let no library reach the hub inside the block, as HF_HUB_OFFLINE does for a whole process."""
    settings = [sys.modules.get(name) for name in ("huggingface_hub.constants", "datasets.config")]
    saved = [(module, module.HF_HUB_OFFLINE) for module in settings if module is not None]  # type: ignore[attr-defined]
    for module, _ in saved:
        module.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module, value in saved:
            module.HF_HUB_OFFLINE = value  # type: ignore[attr-defined]
        late = sys.modules.get("datasets.config")
        if settings[1] is None and late is not None and saved:
            late.HF_HUB_OFFLINE = saved[0][1]  # type: ignore[attr-defined]
