"""Tables of multiple-choice answers: one row an item and setting, with the probability of every answer.

``item, strength, matching, p_a, p_b``: ``matching`` names the answer that shows the behaviour, ``p_a`` is the
probability of answer A. Each row becomes two of a long table: the probability of the matching answer among the answers,
and the probability that all answers have together, which is small where steering made the model say something else.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_steer.outcomes.cells import value_of
from lightning_steer.outcomes.records import MeasureOutcome
from lightning_steer.outcomes.rows import AnswerNames

PREFIX = "p_"
"""Beginning of the columns that hold probabilities; what follows is the answer's name."""
SLACK = 1e-3
"""By how much rounded probabilities may sum to more than 1."""
Record = tuple[int, Sequence[Any]]


def is_answers(header: Sequence[str]) -> bool:
    """Tell whether a table holds probabilities of answers in the place of values."""
    plain = [column.strip().lower() for column in header]
    return "matching" in plain and "value" not in plain and sum(name.startswith(PREFIX) for name in plain) > 1


def names(prefix: str | None) -> AnswerNames:
    """Return the names of both measures; ``prefix`` is what the user calls the table, or its file."""
    start = f"{prefix}_" if prefix else ""
    return AnswerNames(f"{start}matching", f"{start}answer_mass")


def long_rows(
    header: Sequence[str], records: Iterator[Record], name: str, measures: AnswerNames
) -> tuple[list[str], Iterator[Record]]:
    """Return the header and the rows of the long table.

    Args:
        header: names of the columns.
        records: line numbers and cells.
        name: of the file, for messages.
        measures: what the two measures are called.
    """
    plain = [column.strip().lower() for column in header]
    offered = {column[len(PREFIX) :]: place for place, column in enumerate(plain) if column.startswith(PREFIX)}
    matching = plain.index("matching")
    kept = [place for place in range(len(plain)) if place != matching and place not in offered.values()]
    long_header = [*(header[place] for place in kept), "measure", "position", "value"]
    return long_header, _rows(records, len(plain), name, measures, kept, offered, matching)


def _rows(
    records: Iterator[Record],
    width: int,
    name: str,
    measures: AnswerNames,
    kept: list[int],
    offered: Mapping[str, int],
    matching: int,
) -> Iterator[Record]:
    for line, cells in records:
        if len(cells) != width:
            raise ValueError(f"{name}, row {line}: {len(cells)} cells, where the header has {width} columns")
        answer = str(cells[matching]).strip()
        if answer.lower() not in offered:
            raise ValueError(
                f"{name}, row {line}, column matching: {answer[:40]!r} is none of the answers {', '.join(offered)}, "
                f"whose probabilities are in the columns {PREFIX}..."
            )
        each = {one: _probability(cells[place], f"{name}, row {line}, column {PREFIX}{one}")
                for one, place in offered.items()}  # fmt: skip
        mass = sum(each.values())
        if mass <= 0:
            raise ValueError(
                f"{name}, row {line}: all answers have the probability 0, so none is likelier: leave this setting out"
            )
        if mass > 1 + SLACK:
            raise ValueError(
                f"{name}, row {line}: the probabilities of all answers sum to {mass:g}, where at most 1 was expected"
            )
        own = [cells[place] for place in kept]
        yield line, [*own, measures.matching, answer, each[answer.lower()] / mass]
        yield line, [*own, measures.mass, answer, min(mass, 1.0)]


def _probability(cell: Any, where: str) -> float:
    value, truth = value_of(cell, where)
    if truth or not 0 <= value <= 1:
        raise ValueError(f"{where}: {str(cell)[:40]!r} is no probability between 0 and 1")
    return value


def notes(tables: Sequence[AnswerNames], measures: Sequence[MeasureOutcome]) -> list[str]:
    """Return at which settings most of the probability has left the answers."""
    by_name = {measure.name: measure for measure in measures}
    texts = []
    for one in tables:
        settings = by_name[one.mass].settings
        means = ", ".join(f"{setting.value.value:.3f} at {setting.setting}" for setting in settings)
        left = [setting.setting for setting in settings if setting.value.value < 0.5]
        text = f"{one.mass} is the probability of all answers together: {means}."
        if left:
            text += (
                f" At {', '.join(left)} more than half of it has left the answers: {one.matching} says there which of "
                "the answers is left over, not what the model does."
            )
        texts.append(text)
    return texts
