"""What was declared before the seeds that were kept back were opened, and the results of its contrasts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_steer.statistics.claims import Result, above, below
from lightning_steer.studies.arena.summary import Unit
from lightning_steer.studies.declaration import Contrast, Declaration, Question, verdicts

SEED = 0
"""Seed on which everything was looked at."""
KEPT = (1, 2)
"""Seeds that are opened once."""
TRAINED = ("learned_vector", "loreft")
FLOOR = 0.1
"""Standard deviations below which a method's effect is as good as none."""
PAIRS = {
    "loreft above mean_difference": ("loreft", "mean_difference"),
}
"""Contrasts of two methods, first less second."""
USELESS = ("mera",)
"""Methods whose effect is claimed to be as good as none."""
NAMES = tuple(dict.fromkeys([name for pair in PAIRS.values() for name in pair] + list(USELESS)))
EFFECT = Question(
    "Effect at equal damage",
    "Held-out effect of what the search chose within the budget, standard deviations of the margin, base model; each "
    "task's mean over both kept seeds.",
    (
        *(Contrast(name, f"{a} less {b}", "above", primary=i == 0) for i, (name, (a, b)) in enumerate(PAIRS.items())),
        *(Contrast(f"{name} is as good as nothing", f"effect of {name}", "below", FLOOR) for name in USELESS),
    ),
    "tasks of the pocket language",
    "none",
)
DECLARATION = Declaration("arena", (EFFECT,), (), f"seeds {KEPT[0]} and {KEPT[1]}")


def by_task(units: Sequence[Unit], first: str, second: str | None = None) -> NDArray:
    """Return each task's mean effect ``[tasks]`` of a method, or its mean lead over another in the same cells."""
    values: dict[str, list[float]] = {}
    for unit in units:
        lead = unit.effect[first] - (unit.effect[second] if second else 0.0)
        values.setdefault(unit.cluster, []).append(lead)
    return np.array([np.mean(each) for each in values.values()])


def results(kept: Sequence[Unit]) -> dict[str, dict[str, Result]]:
    """Return ``{question: {contrast: result}}`` of every declared contrast."""
    count = len(EFFECT.contrasts)
    found = {name: above(by_task(kept, *pair), 0, count) for name, pair in PAIRS.items()}
    found |= {f"{name} is as good as nothing": below(by_task(kept, name), FLOOR, count) for name in USELESS}
    return {EFFECT.name: found}


def verdict_sentence(kept: Sequence[Unit]) -> str:
    """Return which claims are shown, in one sentence."""
    told = [
        f"{contrast.name.replace('_', ' ')} {result.estimate.text(2)} sd, {'shown' if shown else 'not shown'}"
        for contrast, result, _, shown in verdicts(EFFECT, results(kept)[EFFECT.name])
    ]
    return "; ".join(told) + "."
