"""Rows of a table as prompts with their right labels, and what rows have in common."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Example(NamedTuple):
    """A prompt with its right label."""

    prompt: str
    label: int
    """Index into the task's labels."""
    planted: float = float("nan")
    """The error E that a perfect model of the pocket language makes; NaN where nothing is planted."""
    group: str | None = None
    """What rows share that are not independent, such as a passage; None: the row stands alone."""


def check_labels(labels: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError unless there are two labels or more, each written in its own ways."""
    if len(labels) < 2:
        raise ValueError(f"a task needs at least 2 labels, not {list(labels)}")
    seen: dict[str, str] = {}
    for label, variants in labels.items():
        if isinstance(variants, str) or not variants or not all(v.strip() for v in variants):
            raise ValueError(f"label {label!r} needs a list of written variants, none of them blank, not {variants!r}")
        for variant in variants:
            if seen.setdefault(variant.strip(), label) != label:
                raise ValueError(f"the variant {variant!r} stands for both {seen[variant.strip()]!r} and {label!r}")


def fill(template: str, row: Mapping[str, Any], where: str) -> str:
    """The template with ``{column}`` replaced by the row's text; raises ValueError naming a column that is missing."""

    def value(match: "re.Match[str]") -> str:
        if match[1] not in row:
            raise ValueError(f"{where} has no column {match[1]!r}; its columns are {', '.join(map(str, row))}")
        if row[match[1]] is None:
            raise ValueError(f"{where} has nothing in column {match[1]!r}")
        return str(row[match[1]])

    return re.sub(r"\{(\w+)\}", value, template)


def labelled(
    rows: Sequence[Mapping[str, Any]],
    template: str,
    label_column: str,
    labels: Mapping[str, Sequence[str]],
    where: str,
    group_column: str | None = None,
) -> list[Example]:
    """Rows as examples; raises ValueError for the first one that is not."""
    index = {str(label): i for i, label in enumerate(labels)}
    found = []
    for number, row in enumerate(rows, 1):
        at = f"{where}, row {number},"
        if label_column not in row:
            raise ValueError(f"{at} has no column {label_column!r}; its columns are {', '.join(map(str, row))}")
        label = str(row[label_column]).strip()
        if label not in index:
            raise ValueError(f"{at} has the label {label!r}; known are {', '.join(map(repr, index))}")
        group = None if group_column is None else fill(f"{{{group_column}}}", row, at).strip()
        if group == "":
            raise ValueError(f"{at} has nothing in column {group_column!r}: every row names its group")
        found.append(Example(fill(template, row, at), index[label], group=group))
    return found


def contradictions(examples: Sequence[Example]) -> str:
    """Return a sentence on prompts that occur with several labels; "" if there are none."""
    labels = Counter(prompt for prompt, _ in {(e.prompt, e.label) for e in examples})
    doubled = [prompt for prompt, count in labels.items() if count > 1]
    if not doubled:
        return ""
    return (
        f"{len(doubled):,} prompts occur with more than one label, such as {doubled[0][:60]!r}: each was taken once, "
        "with its first label."
    )


def shared_text(examples: Sequence[Example]) -> str:
    """Return a sentence on rows that share a long line though no group says so; "" if there are none.

    Lines of most prompts are the template's. Rows whose error is planted are drawn independently.
    """
    examples = [e for e in examples if math.isnan(e.planted)]
    lines = [{line.strip() for line in e.prompt.splitlines() if len(line.strip()) >= LONG} for e in examples]
    rows = Counter(line for own in lines for line in own)
    groups = Counter(line for line, _ in {(line, e.group or i) for i, e in enumerate(examples) for line in lines[i]})
    shared = {line for line, count in groups.items() if count > 1 and 2 * rows[line] <= len(examples)}
    count = sum(bool(own & shared) for own in lines)
    if not count:
        return ""
    line = max(sorted(shared), key=lambda one: rows[one])
    return (
        f"{count:,} of {len(examples):,} rows share a line with others, such as {line[:60]!r} in {rows[line]} rows: if "
        "it is a passage, these rows are not independent, so name what they share with group_column."
    )


LONG = 40
"""Characters of a line from which on it is hardly shared by chance."""
