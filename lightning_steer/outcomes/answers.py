"""Tables of multiple-choice answers: a row for each item and setting, with the probability of every answer.

``item, strength, matching, p_a, p_b``: ``matching`` names the answer that shows the behaviour, ``p_a`` is the
probability of answer A. Each row becomes two of a long table: the probability of the matching answer among the answers,
and the total probability of all answers, which is small if steering makes the model say something else.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_steer.errors import UserError
from lightning_steer.outcomes.cells import value_of
from lightning_steer.outcomes.records import MeasureOutcome
from lightning_steer.outcomes.rows import AnswerNames

PREFIX = "p_"
"""Prefix of the columns that hold probabilities; the rest is the answer's name."""
SLACK = 1e-3
"""Largest accepted excess of the sum of rounded probabilities over 1."""
Record = tuple[int, Sequence[Any]]


def is_answers(header: Sequence[str]) -> bool:
    """Return whether a table holds probabilities of answers instead of values."""
    plain = [column.strip().lower() for column in header]
    return "matching" in plain and "value" not in plain and sum(name.startswith(PREFIX) for name in plain) > 1


def names(prefix: str | None) -> AnswerNames:
    """Return the names of both measures; ``prefix`` is the user's name of the table, or its file."""
    start = f"{prefix}_" if prefix else ""
    return AnswerNames(f"{start}matching", f"{start}answer_mass")


def long_rows(
    header: Sequence[str], records: Iterator[Record], name: str, measures: AnswerNames
) -> tuple[list[str], Iterator[Record]]:
    """Return the header and the rows of the long table.

    Args:
        header: names of the columns.
        records: line numbers and cells.
        name: name of the file, for messages.
        measures: names of the two measures.
    """
    plain = [column.strip().lower() for column in header]
    answer_columns = {column[len(PREFIX) :]: place for place, column in enumerate(plain) if column.startswith(PREFIX)}
    matching = plain.index("matching")
    other_columns = [place for place in range(len(plain)) if place != matching and place not in answer_columns.values()]
    long_header = [*(header[place] for place in other_columns), "measure", "position", "value"]
    return long_header, _rows(records, len(plain), name, measures, other_columns, answer_columns, matching)


def _rows(
    records: Iterator[Record],
    width: int,
    name: str,
    measures: AnswerNames,
    other_columns: list[int],
    columns: Mapping[str, int],
    matching: int,
) -> Iterator[Record]:
    for line, cells in records:
        if len(cells) != width:
            raise UserError(f"{name}, row {line}: {len(cells)} cells, where the header has {width} columns")
        answer = str(cells[matching]).strip()
        if answer.lower() not in columns:
            raise UserError(
                f"{name}, row {line}, column matching: {answer[:40]!r} is none of the answers {', '.join(columns)}, "
                f"whose probabilities are in the columns {PREFIX}..."
            )
        probabilities = {label: _probability(cells[place], f"{name}, row {line}, column {PREFIX}{label}")
                for label, place in columns.items()}  # fmt: skip
        mass = sum(probabilities.values())
        if mass <= 0:
            raise UserError(
                f"{name}, row {line}: all answers have the probability 0, so none is likelier: leave this setting out"
            )
        if mass > 1 + SLACK:
            raise UserError(
                f"{name}, row {line}: the probabilities of all answers sum to {mass:g}, where at most 1 was expected"
            )
        copied = [cells[place] for place in other_columns]
        yield line, [*copied, measures.matching, answer, probabilities[answer.lower()] / mass]
        yield line, [*copied, measures.mass, answer, min(round(mass, 12), 1.0)]  # rounding of a sum is no change


def _probability(cell: Any, where: str) -> float:
    value, truth = value_of(cell, where)
    if truth or not 0 <= value <= 1:
        raise UserError(f"{where}: {str(cell)[:40]!r} is no probability between 0 and 1")
    return value


def notes(tables: Sequence[AnswerNames], measures: Sequence[MeasureOutcome]) -> list[str]:
    """Return notes on the settings at which most of the probability has left the answers."""
    by_name = {measure.name: measure for measure in measures}
    texts = []
    for pair in tables:
        settings = by_name[pair.mass].settings
        means = ", ".join(f"{setting.value.value:.3f} at {setting.setting}" for setting in settings)
        lost = [setting.setting for setting in settings if setting.value.value < 0.5]
        text = f"{pair.mass} is the probability of all answers together: {means}."
        if lost:
            text += (
                f" At {', '.join(lost)} more than half of it has left the answers: {pair.matching} says there which of "
                "the answers is left over, not what the model does."
            )
        texts.append(text)
    return texts
