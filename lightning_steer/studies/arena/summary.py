"""From the parts' numbers to ranks and paired differences, with the intervals of ``statistics``."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Mean
from lightning_steer.studies.arena.entrants import DRAWS, RANDOM, REFERENCE
from lightning_steer.studies.arena.language import BUDGET
from lightning_steer.workflows.steer import SHARES

LEVEL = 0.5
"""Equal effect: this many standard deviations of the held-out rows' unsteered margins."""
SHARE = 0.8
"""Of its best effect, for the pairs that a method needs."""
FAINT = 0.1
"""Effects below this share have no best that pairs could be counted for."""


class Unit(NamedTuple):
    """One cell: what each method reaches there."""

    name: str
    cluster: str
    """The task, or the toy cell: units of one cluster are not independent."""
    effect: Mapping[str, float]
    """Held-out effect of the choice: in standard deviations of the margins, or in shares of toy targets."""
    damage: Mapping[str, float]
    at_budget: Mapping[str, float]
    """Held-out effect where the held-out damage is exactly the budget, between the strengths that were tried."""
    needed: Mapping[str, float]
    """Held-out damage at an effect of ``LEVEL``; infinite where it is not reached."""
    preferred: Mapping[str, float]
    """Change of the share of prompts whose positive continuation is the likelier one; empty for toys."""
    sizes: Mapping[int, Mapping[str, float]]
    """Effect by the number of fitted pairs."""


def read(folder: Path, prefix: str = "") -> tuple[list[Unit], list[Unit]]:
    """Return units on language models and on toys, those that explore or (prefix ``verdict-``) those kept back."""
    parts = {path.stem: json.loads(path.read_text()) for path in sorted((folder / "parts").glob("*.json"))}
    language = [language_unit(name, part) for name, part in parts.items() if name.startswith(f"{prefix}language-")]
    toys = [unit for name, part in parts.items() if name.startswith(f"{prefix}toy-") for unit in _toys(name, part)]
    return language, toys


def read_cost(folder: Path) -> dict[str, Any]:
    """Return the part with costs and forms."""
    return json.loads((folder / "parts" / "cost.json").read_text())


def processor_minutes(folder: Path, prefix: str = "") -> float:
    """Return the processor time of all parts of a prefix, in minutes."""
    names = (f"{prefix}language-", f"{prefix}toy-", *(() if prefix else ("cost",)))
    paths = [path for path in (folder / "parts").glob("*.json") if path.stem.startswith(names)]
    return sum(json.loads(path.read_text())["processor_seconds"] for path in paths) / 60


def language_unit(name: str, part: Mapping[str, Any]) -> Unit:
    """Return the cell of a part with the name ``language-MODEL-TASK-SEED``."""
    spread, methods = part["spread"], part["methods"]
    curves = {m: [(0.0, 0.0), *((e, d) for _, e, d in of["curve"] if e is not None)] for m, of in methods.items()}
    sizes = {int(size): {m: e / spread for m, e in of.items()} for size, of in part["sizes"].items()}
    if sizes:
        sizes[round(SHARES[0] * part["settings"]["scale"]["pairs"])] = {
            m: of["effect"] / spread for m, of in methods.items()
        }
    return Unit(
        name,
        name.partition("language-")[2].split("-")[1],
        _one_random({m: of["effect"] / spread for m, of in methods.items()}),
        _one_random({m: of["damage"] for m, of in methods.items()}),
        _one_random({m: at_damage(curve, BUDGET) / spread for m, curve in curves.items()}),
        _one_random({m: damage_at(curve, LEVEL * spread) for m, curve in curves.items()}),
        _one_random({m: of["preferred"] for m, of in methods.items()}),
        {size: _one_random(of) for size, of in sizes.items()},
    )


def _toys(name: str, part: Mapping[str, Any]) -> Iterable[Unit]:
    methods = part["methods"]
    networks = len(next(iter(methods.values()))["effect"])
    for i in range(networks):
        effect = {m: float(np.mean(of["effect"][i])) for m, of in methods.items()}
        damage = {m: float(np.mean(of["damage"][i])) for m, of in methods.items()}
        sizes = {int(s): {m: float(np.mean(e[i])) for m, e in of.items()} for s, of in part["sizes"].items()}
        if sizes:
            sizes[int(part["settings"]["scale"]["pairs"])] = effect
        sizes = {size: _one_random(of) for size, of in sizes.items()}
        curves = {
            m: [[(0.0, 0.0), *((e, d) for _, e, d in problem)] for problem in (of["curve"][i] if of["curve"] else [])]
            for m, of in methods.items()
        }
        at_budget = {m: float(np.mean([at_damage(c, BUDGET) for c in each] or [0.0])) for m, each in curves.items()}
        needed = {m: float(np.mean([damage_at(c, LEVEL) for c in each] or [math.inf])) for m, each in curves.items()}
        cluster = name.partition("toy-")[2]
        effects, lost, exactly, level = map(_one_random, (effect, damage, at_budget, needed))
        yield Unit(f"{name}-{i}", cluster, effects, lost, exactly, level, {}, sizes)


def at_damage(curve: Sequence[tuple[float, float | None]], budget: float) -> float:
    """Return the effect where damage first reaches the budget, linear between strengths; else the last one's.

    Args:
        curve: effect and damage by strength, from no steering on; a damage of None is infinite.
        budget: the damage.
    """
    for (e, d), (next_e, next_d) in itertools.pairwise(curve):
        if next_d is None or next_d > budget:
            share = 0.0 if next_d is None or d is None else (budget - d) / (next_d - d)
            return e + share * (next_e - e)
    return curve[-1][0]


def damage_at(curve: Sequence[tuple[float, float | None]], effect: float) -> float:
    """Return the damage where the effect first reaches a level, linear between strengths; else infinite."""
    for (e, d), (next_e, next_d) in itertools.pairwise(curve):
        if next_e >= effect:
            share = (effect - e) / (next_e - e)
            return math.inf if next_d is None or d is None else d + share * (next_d - d)
    return math.inf


def _one_random(values: Mapping[str, float]) -> dict[str, float]:
    """Return the same with one entry for all random directions, their mean."""
    draws = [values[name] for i in range(DRAWS) if (name := f"{RANDOM} {i + 1}") in values]
    others = {name: value for name, value in values.items() if not name.startswith(RANDOM)}
    return others | ({RANDOM: float(np.mean(draws))} if draws else {})


def table(units: Sequence[Unit], column: str, names: Sequence[str]) -> NDArray:
    """Return a column of the units as ``[n, methods]``."""
    return np.array([[getattr(unit, column)[name] for name in names] for unit in units], dtype=float)


def ranks(effects: NDArray) -> NDArray:
    """Return ranks ``[n, methods]`` within each unit, 1 for the largest effect; ties share their mean."""
    return rankdata(-np.round(effects, 6), axis=1)


def numbers(units: Sequence[Unit]) -> NDArray:
    """Return the cluster of each unit as a number."""
    return np.unique([unit.cluster for unit in units], return_inverse=True)[1]


def mean_ranks(units: Sequence[Unit], names: Sequence[str]) -> dict[str, Estimate]:
    """Return each method's mean rank, with its interval over tasks."""
    rows = ranks(table(units, "effect", names))
    return dict(zip(names, Mean(1, len(names)).estimate(rows, numbers(units)), strict=True))


def over_reference(
    units: Sequence[Unit], names: Sequence[str], column: str = "effect", reference: str = REFERENCE
) -> dict[str, Estimate]:
    """Return each method's mean effect less the reference's in the same cell, with its interval over tasks."""
    rows = table(units, column, names) - table(units, column, [reference])
    return dict(zip(names, Mean().estimate(rows, numbers(units)), strict=True))


def means(
    units: Sequence[Unit], names: Sequence[str], column: str = "effect", low: float = -math.inf, high: float = math.inf
) -> dict[str, Estimate]:
    """Return each method's mean of a column in ``[low, high]``, with its interval over tasks."""
    return dict(zip(names, Mean(low, high).estimate(table(units, column, names), numbers(units)), strict=True))


def reached(units: Sequence[Unit], names: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Return in how many cells a method reaches the level; where it and the reference do; and does with less damage."""
    rows, reference = table(units, "needed", names), table(units, "needed", [REFERENCE])
    both = np.isfinite(rows) & np.isfinite(reference)
    less = both & (rows < reference)
    counts = zip(np.isfinite(rows).sum(0), both.sum(0), less.sum(0), strict=True)
    return {name: (int(a), int(b), int(c)) for name, (a, b, c) in zip(names, counts, strict=True)}


def pairs_needed(units: Sequence[Unit], name: str) -> int | None:
    """Return the fewest fitted pairs with ``SHARE`` of the best mean effect; None if it is too faint."""
    sizes = sorted(set.intersection(*(set(unit.sizes) for unit in units)))
    by_size = {size: float(np.mean([unit.sizes[size][name] for unit in units])) for size in sizes
               if all(name in unit.sizes[size] for unit in units)}  # fmt: skip
    best = max(by_size.values(), default=0.0)
    if len(by_size) < 2 or best < FAINT:
        return None
    return min(size for size, effect in by_size.items() if effect >= SHARE * best)
