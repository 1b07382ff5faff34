"""CAA_Dynamic: is it the behaviour that moves, or the letter? And how much probability is left on both answers?"""

import csv
import io
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_steer import text_files
from lightning_steer.outcomes.rows import number
from lightning_steer.statistics.dose_response import p_values
from lightning_steer.statistics.multiplicity import holm
from lightning_steer.studies.published.sources import table as path_of

BEHAVIOURS = ("envy-kindness", "greed-charity", "wrath-patience")
PREFIX = "caa_dynamic_llama2_7b_chat_"
COLUMNS = ("item", "layer", "multiplier", "matching", "p_a", "p_b")


class BehaviourAnswers(NamedTuple):
    """One behaviour at one layer: ``[items]`` probabilities by multiplier."""

    behaviour: str
    layer: int
    items: tuple[str, ...]
    at_a: NDArray
    """``[items]`` whether A is the matching answer."""
    p_a: dict[float, NDArray]
    p_b: dict[float, NDArray]

    def mass(self, multiplier: float) -> NDArray:
        """Return the probability of both answers."""
        return self.p_a[multiplier] + self.p_b[multiplier]

    def letter(self, multiplier: float) -> NDArray:
        """Return the probability of A among both answers; NaN where both were rounded to 0."""
        mass = self.mass(multiplier)
        return np.divide(self.p_a[multiplier], mass, out=np.full_like(mass, np.nan), where=mass > 0)

    def answered(self, multiplier: float) -> bool:
        """Tell whether at least half of the probability is on both answers, on average over the items."""
        return bool(self.mass(multiplier).mean() >= 0.5)

    def matching(self, multiplier: float) -> NDArray:
        """Return the probability of the matching answer among both."""
        a = self.letter(multiplier)
        return np.where(self.at_a, a, 1 - a)


class AnswerRow(NamedTuple):
    """One row of a table."""

    item: str
    layer: int
    multiplier: float
    matching: str
    p_a: float
    p_b: float


def _row(cells: dict[str, str], where: str) -> AnswerRow:
    numbers = {}
    for name in ("layer", "multiplier", "p_a", "p_b"):
        value = number(cells[name] or "")
        if value is None or (name.startswith("p_") and not 0 <= value <= 1):
            raise ValueError(f"{where}, column {name}: {cells[name]!r} is not the number that was expected")
        numbers[name] = value
    if cells["matching"] not in ("A", "B"):
        raise ValueError(f"{where}, column matching: {cells['matching']!r} is neither A nor B")
    layer, *others = numbers.values()
    multiplier, p_a, p_b = others
    return AnswerRow(cells["item"], int(layer), multiplier, cells["matching"], p_a, p_b)


def read(outcomes: Path) -> list[BehaviourAnswers]:
    """Return every behaviour at every layer.

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: a column or an item is missing.
    """
    cells = []
    for behaviour in BEHAVIOURS:
        path = path_of(outcomes, f"{PREFIX}{behaviour}.csv")
        rows = list(csv.DictReader(io.StringIO(text_files.read(path))))
        if not rows or set(rows[0]) != set(COLUMNS):
            raise ValueError(f"{path.name}: the columns are {', '.join(COLUMNS)}, and there is at least one row")
        by_layer: dict[int, dict[float, dict[str, AnswerRow]]] = defaultdict(lambda: defaultdict(dict))
        for line, cell in enumerate(rows, 2):
            row = _row(cell, f"{path.name}, row {line}")
            by_item = by_layer[row.layer][row.multiplier]
            if row.item in by_item:
                raise ValueError(f"{path.name}, row {line}: item {row.item!r} stands twice at one multiplier and layer")
            by_item[row.item] = row
        for layer, by_multiplier in sorted(by_layer.items()):
            items = tuple(next(iter(by_multiplier.values())))
            for multiplier, by_item in by_multiplier.items():
                if set(by_item) != set(items):
                    raise ValueError(f"{path.name}, layer {layer}: multiplier {multiplier:g} has other items")
            first = next(iter(by_multiplier.values()))
            p_a, p_b = (
                {m: np.array([getattr(by_multiplier[m][i], name) for i in items]) for m in sorted(by_multiplier)}
                for name in ("p_a", "p_b")
            )
            at_a = np.array([first[item].matching == "A" for item in items])
            cells.append(BehaviourAnswers(behaviour, layer, items, at_a, p_a, p_b))
    return cells


class Counts(NamedTuple):
    """In how many cells, a behaviour at a layer each, which effect of multiplier s beside -s is seen."""

    cells: int
    as_meant: int
    """The matching answer is likelier at s than at -s, on average over the items."""
    each_side: int
    """It is likelier at s than without steering, and less likely at -s."""
    each_letter: int
    """It is likelier at s than at -s both where A matches and where B does."""
    answered: int
    """At s and at -s at least half of the probability is on both answers."""
    each_letter_answered: int
    """Both of the last two."""
    letter: int
    """A is likelier at s than at -s, whichever matches."""
    both_up: int
    """The matching answer is likelier at s and at -s than without steering."""
    as_meant_certain: int
    """As meant, after Holm's correction over the cells."""
    letter_certain: int
    smallest_p: float
    """The smallest p-value that so many items can give."""


def count(cells: list[BehaviourAnswers], s: float) -> Counts:
    """Return how many cells move as meant between the multipliers -s and s."""
    moves = [cell.matching(s) - cell.matching(-s) for cell in cells]
    letters = [cell.letter(s) - cell.letter(-s) for cell in cells]
    sides = [
        ((cell.matching(s) - cell.matching(0)).mean(), (cell.matching(-s) - cell.matching(0)).mean()) for cell in cells
    ]
    n = max(len(cell.items) for cell in cells)
    each_letter = [_each_letter(cell, move) for cell, move in zip(cells, moves, strict=True)]
    answered = [cell.answered(s) and cell.answered(-s) for cell in cells]
    return Counts(
        len(cells),
        sum(bool(move.mean() > 0) for move in moves),
        sum(bool(up > 0 > down) for up, down in sides),
        sum(each_letter),
        sum(answered),
        sum(a and b for a, b in zip(each_letter, answered, strict=True)),
        sum(bool(letter.mean() > 0) for letter in letters),
        sum(bool(up > 0 and down > 0) for up, down in sides),
        certain(moves),
        certain(letters),
        float(p_values(np.ones((1, n)), False, 0.0, 1.0, None, len(cells))[0]),
    )


def _each_letter(cell: BehaviourAnswers, move: NDArray) -> bool:
    groups = [move[cell.at_a], move[~cell.at_a]]
    return all(len(group) and group.mean() > 0 for group in groups)


def certain(moves: list[NDArray]) -> int:
    """Return how many mean changes ``[items]`` are above 0 for certain, all together at .05 (betting, Holm)."""
    p = [p_values(move[None], False, 0.0, 1.0, None, len(moves))[0] for move in moves]
    return int((holm(p) < 0.05).sum())


def pooled(cells: list[BehaviourAnswers], s: float) -> tuple[int, int, int]:
    """Return how many layers there are, and at how many, with all behaviours' items together, it is certain.

    As meant; the letter A.
    """
    layers = sorted({cell.layer for cell in cells})
    by_layer = [[cell for cell in cells if cell.layer == layer] for layer in layers]
    moves = [np.concatenate([cell.matching(s) - cell.matching(-s) for cell in some]) for some in by_layer]
    letters = [np.concatenate([cell.letter(s) - cell.letter(-s) for cell in some]) for some in by_layer]
    return len(layers), certain(moves), certain(letters)
