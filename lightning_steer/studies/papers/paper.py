"""What a paper's experiment consists of: models, data, configurations, runs, and its table."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_steer.errors import UserError
from lightning_steer.plan.blank import located
from lightning_steer.plan.known import KNOWN
from lightning_steer.studies.papers.runner import Runner

Planned = tuple[str, float, Sequence[str], Sequence[str]]
"""Runs of one kind: what they are, how many, configuration files, options."""


@dataclass(frozen=True)
class Clone:
    """Released data that are read from a clone of their repository."""

    address: str
    folder: str
    """Where the clone lies below the folder of the data."""
    files: tuple[str, ...]
    """Those that are read."""


@dataclass(frozen=True)
class Paper:
    """One experiment of a source.

    Args:
        name: as it is given on the command line; its configuration is ``configs/papers/NAME.yaml``.
        source: the paper, and the table, figure or claim that is repeated.
        models: the source's, by their names on the hub.
        configs: files that are read before the experiment's own one, and after it.
        run: runs all cells and returns their results by name; it is given the models, the folder of the data, and what
            runs a command.
        table: returns the lines of the table from the results; a cell without a result is empty.
        clones: released data that the user downloads.
        hub_data: data sets on the hub that are read where no local copy lies in the folder of the data.
        plans: the kinds of runs of a model, for what they cost: in words, how many, configuration files, options.
        parts: what ``--only`` can name.
        own_files: names of the user's own files in the folder of the data.
    """

    name: str
    source: str
    models: tuple[str, ...]
    configs: tuple[tuple[str, ...], tuple[str, ...]]
    run: Callable[[Sequence[str], Path, Runner], Mapping[str, Any]]
    table: Callable[[Mapping[str, Any], Sequence[str]], list[str]]
    plans: Callable[[str, Path], list[Planned]]
    clones: tuple[Clone, ...] = ()
    hub_data: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    own_files: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Return the names of all configuration files of a run, in their order."""
        before, after = self.configs
        return (*before, f"configs/papers/{self.name}.yaml", *after)

    @property
    def command(self) -> str:
        """Return the command that runs it."""
        return f"python -m lightning_steer.studies.papers {self.name}"


def check_models(models: Sequence[str]) -> None:
    """Raise ValueError if models are not on this machine: one sentence on what to download and how large it is."""
    missing, last = [], None
    for name in dict.fromkeys(models):
        try:
            located(name)
        except ValueError as error:
            missing, last = [*missing, name], error
    if last is None:
        return
    if len(missing) == 1:
        raise last
    sizes = [KNOWN[name].download for name in missing if name in KNOWN]
    unknown = "" if len(sizes) == len(missing) else f", {len(missing) - len(sizes)} of unknown size not counted"
    names = "; ".join(f"`hf download {name}`, {_size(name)}" for name in missing)
    raise UserError(
        f"{len(missing)} models are neither local folders nor in the hub's local cache, {sum(sizes) / 1e9:.1f} GB in "
        f"all{unknown}: download them with {names}"
    )


def _size(name: str) -> str:
    known = KNOWN.get(name)
    if known is None:
        return "whose size is not known here"
    return f"{known.download / 1e9:.1f} GB" + (" (probably gated: see its hub page first)" if known.gated else "")


def check_data(paper: Paper, folder: Path) -> None:
    """Raise FileNotFoundError if data are missing: one sentence on what to clone or to bring, and where."""
    for name in paper.own_files:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"there is no {folder / name}: {paper.name} reads your own prompts, blank lines between them, from "
                f"{' and '.join(paper.own_files)} in {folder}, or in the folder that --data names"
            )
    for clone in paper.clones:
        for name in clone.files:
            if not (folder / clone.folder / name).is_file():
                raise FileNotFoundError(
                    f"there is no {folder / clone.folder / name}: get the released data with "
                    f"`git clone https://github.com/{clone.address} {folder / clone.folder}`, or say with --data where "
                    "they are"
                )


def published(name: str) -> dict[str, Any]:
    """Return what is published of an experiment, from the file beside this one, which names the source of each."""
    return json.loads((Path(__file__).parent / "published.json").read_text())[name]
