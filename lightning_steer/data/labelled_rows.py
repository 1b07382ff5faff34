"""Turn table rows into labelled prompts, and detect rows that share text or contradict each other."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lightning_steer.errors import UserError


class LabelledExample(NamedTuple):
    """A prompt with its right label."""

    prompt: str
    label: int
    """Index into the task's labels."""
    ground_truth: float = float("nan")
    """The error E of a perfect model of the pocket language; NaN where the true error is not known."""
    group: str | None = None
    """The source that dependent rows share, such as a passage; None if the row is independent."""


def check_labels(labels: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError unless there are at least two labels, each with written variants of its own."""
    if len(labels) < 2:
        raise UserError(f"a task needs at least 2 labels, not {list(labels)}")
    label_of_variant: dict[str, str] = {}
    for label, variants in labels.items():
        if isinstance(variants, str) or not variants or not all(v.strip() for v in variants):
            raise UserError(f"label {label!r} needs a list of written variants, none of them blank, not {variants!r}")
        for variant in variants:
            if label_of_variant.setdefault(variant.strip(), label) != label:
                raise UserError(
                    f"the variant {variant!r} stands for both {label_of_variant[variant.strip()]!r} and {label!r}"
                )


def fill(template: str, row: Mapping[str, Any], where: str) -> str:
    """Replace each ``{column}`` of the template by the row's text; raises ValueError naming a missing column."""

    def value(match: "re.Match[str]") -> str:
        if match[1] not in row:
            raise UserError(f"{where} has no column {match[1]!r}; its columns are {', '.join(map(str, row))}")
        if row[match[1]] is None:
            raise UserError(f"{where} has nothing in column {match[1]!r}")
        return str(row[match[1]])

    return re.sub(r"\{(\w+)\}", value, template)


def labelled(
    rows: Sequence[Mapping[str, Any]],
    template: str,
    label_column: str,
    labels: Mapping[str, Sequence[str]],
    where: str,
    group_column: str | None = None,
) -> list[LabelledExample]:
    """Return rows as examples; raises ValueError for the first invalid row."""
    index = {str(label): i for i, label in enumerate(labels)}
    examples = []
    for number, row in enumerate(rows, 1):
        row_name = f"{where}, row {number},"
        if label_column not in row:
            raise UserError(f"{row_name} has no column {label_column!r}; its columns are {', '.join(map(str, row))}")
        label = str(row[label_column]).strip()
        if label not in index:
            raise UserError(f"{row_name} has the label {label!r}; known are {', '.join(map(repr, index))}")
        group = None if group_column is None else fill(f"{{{group_column}}}", row, row_name).strip()
        if group == "":
            raise UserError(f"{row_name} has nothing in column {group_column!r}: every row names its group")
        examples.append(LabelledExample(fill(template, row, row_name), index[label], group=group))
    return examples


def contradictions(examples: Sequence[LabelledExample]) -> str:
    """Return a sentence on prompts that occur with several labels; "" if there are none."""
    labels = Counter(prompt for prompt, _ in {(e.prompt, e.label) for e in examples})
    repeated = [prompt for prompt, count in labels.items() if count > 1]
    if not repeated:
        return ""
    return (
        f"{len(repeated):,} prompts occur with more than one label, such as {repeated[0][:60]!r}: each was taken once, "
        "with its first label."
    )


def shared_text(examples: Sequence[LabelledExample]) -> str:
    """Return a sentence on rows of different groups that share a long line; "" if there are none.

    Lines that occur in most prompts belong to the template. Rows with a known error are drawn independently.
    """
    examples = [e for e in examples if math.isnan(e.ground_truth)]
    lines = [{line.strip() for line in e.prompt.splitlines() if len(line.strip()) >= LONG} for e in examples]
    rows = Counter(line for row_lines in lines for line in row_lines)
    groups = Counter(line for line, _ in {(line, e.group or i) for i, e in enumerate(examples) for line in lines[i]})
    shared = {line for line, count in groups.items() if count > 1 and 2 * rows[line] <= len(examples)}
    count = sum(bool(row_lines & shared) for row_lines in lines)
    if not count:
        return ""
    line = max(sorted(shared), key=lambda text: rows[text])
    return (
        f"{count:,} of {len(examples):,} rows share a line with others, such as {line[:60]!r} in {rows[line]} rows: if "
        "it is a passage, these rows are not independent, so name what they share with group_column."
    )


LONG = 40
"""Lines of at least this many characters are hardly shared by chance."""
