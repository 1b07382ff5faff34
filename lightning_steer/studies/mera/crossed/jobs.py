"""The crossed design's cells, as jobs for a pool of processes."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lightning_steer.studies.mera import settings
from lightning_steer.studies.mera.crossed import cell, declaration, networks, planted, pocket, worlds
from lightning_steer.studies.mera.crossed.results import Key

SMALL = (300, 80, 100)
"""Rows of the pocket models' splits in a trial run."""


def keys(verdict: bool) -> list[Key]:
    """Return all cells of the design, or of an exploration."""
    draws = declaration.DRAWS if verdict else declaration.EXPLORED_DRAWS
    seeds = declaration.NETWORKS if verdict else declaration.EXPLORED_NETWORKS
    network_keys = [Key(w.name, str(seed), "", draw) for w in worlds.WORLDS for seed in seeds for draw in draws]
    return network_keys + [
        Key(f"pocket, {mixture}", model, task, draw)
        for draw in (declaration.POCKET_DRAWS if verdict else draws)
        for mixture in settings.MIXTURES
        for model in settings.MODELS
        for task in settings.TASKS
    ]


def run_cell(key: Key, models_in: Path, nets: Path, first: bool, small: bool) -> dict[str, Any]:
    """Run one cell on one thread; each core has its own process."""
    torch.set_num_threads(1)
    if key.task:
        share = settings.MIXTURES[key.kind.partition(", ")[2]]
        llm = pocket.model(models_in / key.network, key.network == "tuned")
        parts, answer = pocket.parts(llm, key.task, share, key.draw, SMALL if small else pocket.SIZES)
    else:
        world = next(w for w in worlds.WORLDS if w.name == key.kind)
        trained = networks.load(nets, world, int(key.network), 60 if small else networks.STEPS)
        parts, answer = drawn(trained, world, key, 40 if small else 250)
    return cell.run(parts, answer, 1000 * key.draw, first)


def drawn(
    trained: networks.Trained, world: worlds.World, key: Key, calibration: int, share: float | None = None,
    above: int = networks.ABOVE,
) -> tuple[cell.CellParts, Any]:  # fmt: skip
    """Draw rows for a small network: four times as many test rows as calibration rows.

    ``share`` of them have the pull label; by default the share of the world's steered rows. They are read and steered
    with ``above`` blocks still to come.
    """
    answer = partial(trained.network.answer, above=above)
    generator = torch.Generator().manual_seed(10_000 * key.draw + int(key.network))

    def part(n: int) -> cell.CellPart:
        rows = worlds.draw(world, n, generator, share)
        h = trained.network.read(rows.x, above)
        return cell.CellPart(h, rows.y, answer(h))

    return cell.CellParts(part(world.train), part(calibration), part(calibration), part(4 * calibration)), answer


def repeats(kind: str, seeds: Sequence[int]) -> list[list[float]]:
    """Run repeats of a positive control."""
    torch.set_num_threads(1)
    return [list(planted.repeat(kind, seed)) for seed in seeds]


def gap(nets: Path, kind: str, seed: int) -> float:
    """Train a small network if it is missing; return its mean KL from the planted answers in nats."""
    torch.set_num_threads(1)
    return networks.load(nets, next(w for w in worlds.WORLDS if w.name == kind), seed).gap
