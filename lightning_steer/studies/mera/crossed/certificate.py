"""The certificate's power and false alarms by true effect, for twenty random and ten mixed candidates."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_steer.statistics.bounds import ExactPaired
from lightning_steer.studies.mera.crossed.shifts import Answer, Family, answers
from lightning_steer.studies.mera.settings import DELTA

if TYPE_CHECKING:
    from lightning_steer.studies.mera.crossed.cell import CellPart

REPEATS = 4000
AT_ONCE = 500


@lru_cache(maxsize=8)
def _bounds(rows: int, risk: float) -> NDArray:
    """Return the exact paired bound ``[gains, harms]`` of every count, to .005; -1 for impossible counts."""
    gains, harms = np.indices((rows + 1, rows + 1))
    real = gains + harms <= rows
    table = np.full(real.shape, -1.0)
    table[real] = ExactPaired(resolution=0.005).at(gains[real], harms[real], rows, risk)
    return table


def chosen(changes: NDArray) -> tuple[NDArray, NDArray]:
    """Return the candidates ``[R]`` with the best bound for ``changes [R, K, rows]``, and if they are certified."""
    table = _bounds(changes.shape[-1], DELTA / changes.shape[1])
    lower = table[(changes > 0).sum(-1), (changes < 0).sum(-1)]
    best = lower.argmax(1)
    return best, lower[np.arange(len(lower)), best] > 0


def resampled(changes: NDArray, rows: int, seed: int, repeats: int = REPEATS) -> dict[str, Any]:
    """Return how often calibrations drawn from a population of rows certify, and how often falsely.

    Args:
        changes: ``[K, N]`` -1, 0 or 1 of K candidates in the population; their means are the true effects.
        rows: number of rows of a calibration.
        seed: draws the rows.
        repeats: number of calibrations.
    """
    random, true_effects = np.random.default_rng(seed), changes.mean(1)
    certified = false = 0
    for start in range(0, repeats, AT_ONCE):
        drawn = random.integers(changes.shape[1], size=(min(AT_ONCE, repeats - start), rows))
        best, is_certified = chosen(changes[:, drawn].transpose(1, 0, 2))
        certified += int(is_certified.sum())
        false += int((is_certified & (true_effects[best] <= 0)).sum())
    return {"best": float(true_effects.max()), "certified": certified, "false": false, "repeats": repeats,
            "helpful": int((true_effects > 0).sum()), "candidates": len(true_effects)}  # fmt: skip


def of_cell(answer: Answer, test: "CellPart", of: list[Family], rows: int, seed: int) -> dict[str, Any]:
    """Resample both sets of candidates, with the test rows as the population.

    *Random*: twenty directions as long as the mean difference. *Mixed*: Sigma w of least squares at five thresholds,
    and the same five shifts reversed.
    """
    random_families = [f for f in of if f.direction.startswith("random")]
    sigma_w = next(f for f in of if (f.probe, f.direction, f.dose) == ("lasso 0", "Sigma w", "adaptive"))
    opposite = sigma_w._replace(along=-sigma_w.along)
    middle_strength, five_strengths = torch.full((len(random_families), 1), 3), torch.arange(1, 10, 2).expand(2, -1)
    sets = {
        "random": answers(answer, test.h, test.label, random_families, middle_strength)[:, 0],
        "mixed": answers(answer, test.h, test.label, [sigma_w, opposite], five_strengths).flatten(0, 1),
    }
    base = test.right.numpy().astype(np.int8)
    return {
        name: resampled((labels == test.y).numpy().astype(np.int8) - base, rows, seed) for name, labels in sets.items()
    }


EFFECTS = (-0.005, 0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
CHURN, SHARED, ROWS = 0.15, 0.5, 250
SETS = {"20 alike": 20, "10 mixed": 10}
HARM = -0.05
"""True effect of five of the ten mixed candidates. Four others have none, and the last has the effect of the row."""


def by_effect(name: str, repeats: int = REPEATS, seed: int = 0, churn: float = CHURN) -> list[dict[str, Any]]:
    """Return by true effect how often planted candidates of a set are certified, and how often falsely.

    Every candidate changes the share ``churn`` of the rows; effects beyond it are left out. In half of the rows, drawn
    anew in each calibration, all candidates share one random number and move together; in the others they are
    independent.
    """
    random, rows, k = np.random.default_rng(seed), [], SETS[name]
    for effect in (e for e in EFFECTS if abs(e) <= churn):
        true_effects = np.full(k, effect) if name == "20 alike" else np.array([HARM] * 5 + [0.0] * 4 + [effect])
        counts = {"certified": 0, "false": 0}
        for start in range(0, repeats, AT_ONCE):
            size = min(AT_ONCE, repeats - start)
            own, common = random.random((size, k, ROWS)), random.random((size, 1, ROWS))
            u = np.where(random.random((size, 1, ROWS)) < SHARED, common, own)
            gain, harm = (churn + true_effects[:, None]) / 2, (churn - true_effects[:, None]) / 2
            best, is_certified = chosen((u < gain).astype(np.int8) - (u > 1 - harm).astype(np.int8))
            counts["certified"] += int(is_certified.sum())
            counts["false"] += int((is_certified & (true_effects[best] <= 0)).sum())
        rows.append({"set": name, "effect": effect, "repeats": repeats, **counts})
    return rows
