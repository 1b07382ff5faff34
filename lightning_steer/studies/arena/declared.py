"""What was declared before the seeds that were kept back were opened, and the results of its contrasts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_steer.statistics.claims import Result, above
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.intervals import mean_over_units
from lightning_steer.studies.arena.entrants import RANDOM
from lightning_steer.studies.arena.summary import Unit
from lightning_steer.studies.declaration import Contrast, Declaration, Question, verdicts

SEED = 0
"""Seed on which everything was looked at."""
KEPT = (1, 2)
"""Seeds that are opened once."""
TRAINED = ("learned_vector", "loreft")
PAIRS = {
    "a learned vector above the mean difference": ("learned_vector", "mean_difference"),
    "clamping above the mean difference": ("clamp", "mean_difference"),
    "the mean difference above a random direction": ("mean_difference", RANDOM),
    "a random direction above MERA": (RANDOM, "mera"),
    "a random direction above the additive probe": (RANDOM, "probe_additive"),
}
"""Contrasts of two methods, first less second."""
NAMES = tuple(dict.fromkeys(f"{name} 1" if name == RANDOM else name for pair in PAIRS.values() for name in pair))
MANY = ("mean_difference", "ridge", "transport", "loreft", "learned_vector")
"""Methods that steer eight attributes of the kept toy networks, which no claim is made of: they are two."""
EFFECT = Question(
    "Effect at equal damage",
    "Held-out effect of what the search chose within the budget, standard deviations of the margin, base model, layers "
    "1 and 3; the mean of each of ten tasks over both kept seeds. One random direction stands for all.",
    tuple(Contrast(name, f"{a} less {b}", "above", primary=i == 0) for i, (name, (a, b)) in enumerate(PAIRS.items())),
    "tasks of the pocket language",
    "none planted; the mean difference against a random direction is what every method is expected to pass",
)
DECLARATION = Declaration(
    "arena",
    (EFFECT,),
    (
        "seed 0: all methods, ten tasks on the base model and three on the tuned one, five toy cells with network 0",
        "before that, to size the cells: mean differences at all layers on nine tasks, and all methods on the task "
        "'truthful', both with seed 0",
    ),
    f"pairs and splits of seeds {KEPT[0]} and {KEPT[1]} on the base model; toy networks {KEPT[0]} and {KEPT[1]}",
)


AGAIN_SEEDS = (3,)
AGAIN_PAIRS = {
    "LoReFT above the mean difference": ("loreft", "mean_difference"),
    "LoReFT above a learned vector": ("loreft", "learned_vector"),
}
AGAIN_NAMES = ("mean_difference", "learned_vector", "loreft")
BEST = Question(
    "The best mean rank",
    "LoReFT has the best mean rank on seed 0, and the first declaration left it out; effects as there, of one seed.",
    tuple(
        Contrast(name, f"{a} less {b}", "above", primary=i == 0) for i, (name, (a, b)) in enumerate(AGAIN_PAIRS.items())
    ),
    EFFECT.unit,
    "none planted",
)
AGAIN = Declaration(
    "arena, second declaration",
    (BEST,),
    (*DECLARATION.tried_before, "the first declaration's verdicts on seeds 1 and 2, without LoReFT"),
    f"pairs and splits of seed {AGAIN_SEEDS[0]} on the base model",
)


LEAST_TASKS = 5
"""Tasks below which no verdict is given: a quick look has one."""


def enough(verdict_units: Sequence[Unit]) -> bool:
    """Return whether there are tasks enough for a verdict."""
    return len({unit.cluster for unit in verdict_units}) >= LEAST_TASKS


def by_task(units: Sequence[Unit], first: str, second: str) -> NDArray:
    """Return a method's mean lead over another in the same cells, for each task ``[tasks]``."""
    values: dict[str, list[float]] = {}
    for unit in units:
        values.setdefault(unit.cluster, []).append(unit.effect[first] - unit.effect[second])
    return np.array([np.mean(each) for each in values.values()])


def results(verdict_units: Sequence[Unit]) -> dict[str, Result]:
    """Return the results of the first declaration's contrasts, by name."""
    return {name: above(by_task(verdict_units, *pair), 0, len(PAIRS)) for name, pair in PAIRS.items()}


def again_results(verdict_units: Sequence[Unit]) -> dict[str, Result]:
    """Return the results of the second declaration's contrasts, by name."""
    return {name: above(by_task(verdict_units, *pair), 0, len(AGAIN_PAIRS)) for name, pair in AGAIN_PAIRS.items()}


def findings(question: Question, results: dict[str, Result]) -> str:
    """Return which claims of a question are shown, in one sentence."""
    sentences = [
        f"{contrast.name}: {result.estimate.text(2)} sd, {'shown' if shown else 'not shown'}"
        for contrast, result, _, shown in verdicts(question, results)
    ]
    return "; ".join(sentences)


def with_many_pairs(toys: Sequence[Unit]) -> dict[str, Estimate]:
    """Return what each method reaches with eight attributes, over the kept networks."""
    return {name: mean_over_units([unit.effect[name] for unit in toys]) for name in MANY}
