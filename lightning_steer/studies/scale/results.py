"""From the parts' numbers to each declared contrast at both sizes, their difference, and whether it held."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from lightning_steer.statistics.claims import Result, above, below
from lightning_steer.statistics.estimate import LEVEL, Estimate
from lightning_steer.statistics.jackknife import estimate_of_rows
from lightning_steer.statistics.kinds import Mean
from lightning_steer.statistics.multiplicity import holm
from lightning_steer.statistics.power import could_have_seen
from lightning_steer.studies.arena.summary import language_unit
from lightning_steer.studies.declaration import Contrast, Question
from lightning_steer.studies.mera.crossed.results import value
from lightning_steer.studies.scale import declared
from lightning_steer.studies.scale.design import Design, arena_name, mera_name

Parts = Mapping[str, Mapping[str, Any]]
"""The parts' numbers by name."""
Units = dict[str, NDArray]
"""``{contrast: [units]}``; NaN where a unit says nothing."""


class FindingRow(NamedTuple):
    """One finding."""

    contrast: Contrast
    results: tuple[Result, Result]
    """Of the small and of the large model."""
    shown: tuple[bool, bool]
    sides: tuple[str, str]
    """How many units lie on the claim's side of its limit."""
    difference: Estimate
    """Large less small, over the same units."""
    could_have_seen: float
    """Smallest difference whose interval would exclude 0 in 80 % of repeats; infinite without an interval."""
    verdict: str


def units(question: Question, parts: Parts, size: str, design: Design) -> Units:
    """Return the units of every contrast of a question at a size."""
    if question is declared.KNOWLEDGE:
        return _knowledge(parts, size)
    if question is declared.FIDELITY:
        return _fidelity(parts[f"fidelity-{size}"])
    return (_mera if question is declared.MERA else _arena)(parts, size, design)


def _knowledge(parts: Parts, size: str) -> Units:
    models = (parts[f"knowledge-{size}-{model}"]["units"] for model in ("base", "tuned"))
    return {name: np.array(column) for of in models for name, column in of.items()}


def _mera(parts: Parts, size: str, design: Design) -> Units:
    def column(mixture: str, left: Any, right: Any, figure: str) -> NDArray:
        cells = [[parts[mera_name(size, *unit, mixture, draw)] for draw in design.mera_draws]
                 for unit in design.mera_units]  # fmt: skip
        values = [[value(c, left, figure) - value(c, right, figure) for c in row] for row in cells]
        return np.array([finite_mean(row) for row in values])

    by_name = {name: column(declared.PULL, *sides) for name, sides in declared.COMPARISONS.items()}
    each = (column(mixture, declared.GAIN, "nothing", "spi") for mixture in (declared.PULL, declared.BALANCED))
    return by_name | {declared.PRIOR: np.subtract(*each)}


def finite_mean(values: Sequence[float]) -> float:
    """Return the mean of what is finite; NaN if nothing is."""
    finite = [v for v in values if math.isfinite(v)]
    return float(np.mean(finite)) if finite else math.nan


def _fidelity(arms: Mapping[str, Any]) -> Units:
    def of(arm: str, measure: str) -> NDArray:
        return np.array(arms[arm][measure])

    columns: list[NDArray] = []
    for model in ("tuned", "base"):
        columns += np.split(of(model, "pattern_nats"), 2)
    columns += [of(model, "margin_change") - of(model, "random") for model in ("base", "tuned")]
    own, lent = of("narrow", "margin_change"), of("narrow, base vector", "margin_change")
    base = of("base", "margin_change")
    columns += [base - of("tuned", "margin_change"), lent - own, base - lent]
    return {c.name: column for c, column in zip(declared.FIDELITY.contrasts, columns, strict=True)}


def effects(parts: Parts, size: str, design: Design, again: bool = False) -> dict[str, NDArray]:
    """Return each method's effect in every task, ``{method: [tasks]}``, in standard deviations of the margin.

    Args:
        parts: the numbers.
        size: of the model.
        design: tasks and seeds.
        again: of the second seed.
    """
    seed = design.arena_seeds[again]
    cells = [language_unit(f"language-base-{task}-{seed}", parts[arena_name(size, task, seed)]).effect
             for task in design.arena_tasks]  # fmt: skip
    return {name: np.array([cell[name] for cell in cells]) for name in cells[0]}


def _arena(parts: Parts, size: str, design: Design) -> Units:
    reached = effects(parts, size, design)
    return {name: reached[a] - reached[b] for name, (a, b) in declared.ARENA_PAIRS.items()}


def agreement(first: Mapping[str, NDArray], second: Mapping[str, NDArray]) -> Estimate:
    """Return Spearman's correlation over methods of their mean ranks in two sets of cells, with an interval over tasks.

    Args:
        first: ``{method: [tasks]}`` effects.
        second: the same in other cells, of the same tasks.
    """
    names = sorted(first.keys() & second.keys())
    ranks = [rankdata(np.round(np.stack([of[name] for name in names], 1), 6), axis=1) for of in (first, second)]

    def correlation(rows: NDArray) -> float:
        return float(np.corrcoef(*(rankdata(table[rows].mean(0)) for table in ranks))[0, 1])

    return estimate_of_rows(correlation, len(ranks[0]), low=-1, high=1)


SPI = Mean(-2, 2)
"""A difference of two SPI, or a rank correlation."""
KINDS = {declared.MERA.name: (SPI, Mean(-4, 4))}
"""Of units and of their differences between sizes, where something bounds them."""


def result(column: NDArray, contrast: Contrast, claims: int, kind: Mean) -> Result:
    """Return a contrast's result over the units that say something; a claim over fewer than two is not shown."""
    values = column[np.isfinite(column)]
    if len(values) < 2:
        return Result(_estimate(values, kind), 1.0, math.inf)
    claim = above if contrast.direction == "above" else below
    return claim(values, contrast.limit, claims)._replace(estimate=_estimate(values, kind))


def _estimate(values: NDArray, kind: Mean) -> Estimate:
    if not len(values):
        return Estimate.described(math.nan, 0, None, "none: no unit says anything")
    return kind.estimate(values)[0]


def on_its_side(column: NDArray, contrast: Contrast) -> str:
    """Return how many of the units that say something lie beyond the limit, on the claim's side."""
    values = column[np.isfinite(column)] - contrast.limit
    return f"{int((values > 0 if contrast.direction == 'above' else values < 0).sum())} of {len(values)}"


def rows(question: Question, small: Units, large: Units) -> list[FindingRow]:
    """Return every finding of a question."""
    kind, kind_of_difference = KINDS.get(question.name, (Mean(), Mean()))
    contrasts = question.contrasts
    both = [[result(of[c.name], c, len(contrasts), kind) for c in contrasts] for of in (small, large)]
    shown = [(holm([result.p for result in of]) <= 1 - LEVEL).tolist() for of in both]
    listed = []
    for i, contrast in enumerate(contrasts):
        difference = large[contrast.name] - small[contrast.name]
        estimate = _estimate(difference[np.isfinite(difference)], kind_of_difference)
        pair, is_shown = (both[0][i], both[1][i]), (shown[0][i], shown[1][i])
        sides = on_its_side(small[contrast.name], contrast), on_its_side(large[contrast.name], contrast)
        verdict = declared.verdict(*pair, is_shown, contrast.limit)
        listed.append(FindingRow(contrast, pair, is_shown, sides, estimate, could_have_seen(estimate), verdict))
    return listed
