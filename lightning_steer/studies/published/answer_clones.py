"""Clones of CAA and CAA_Dynamic: a file of answers A and B for each behaviour, layer and multiplier."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lightning_steer.studies.published import caa, caa_dynamic
from lightning_steer.studies.published.clone_files import csv_text, read_json, rows_of

RESULT = re.compile(
    r"results_layer=(?P<layer>\d+)_multiplier=(?P<multiplier>-?\d+(?:\.\d+)?)_behavior=(?P<behaviour>[\w-]+)"
    r"_type=ab_use_base_model=False_model_size=7b\.json"
)
"""Of the chat model with 7 billion parameters; vectors of weighted layers and other sizes have other names."""


class Answer(NamedTuple):
    """One item at one layer and multiplier."""

    item: int
    layer: int
    multiplier: float
    matching: str
    p_a: float
    p_b: float


def answers(clone: Path, behaviour: str, layer: int | None = None) -> Iterator[Answer]:
    """Yield the answers of one behaviour in the order of layers and multipliers; of one layer if it is given.

    Raises:
        FileNotFoundError: the clone has no results of this behaviour.
        ValueError: a file is not what was expected, or two have other questions.
    """
    named = [(RESULT.fullmatch(path.name), path) for path in (clone / "results" / behaviour).glob("*.json")]
    files = [
        (int(m["layer"]), float(m["multiplier"]), path)
        for m, path in named
        if m and m["behaviour"] == behaviour and layer in (None, int(m["layer"]))
    ]
    if not files:
        start = "results_layer=..." if layer is None else f"results_layer={layer}_..."
        raise FileNotFoundError(f"{clone} has no file results/{behaviour}/{start}: give a clone of {clone.name}")
    questions: list[Any] | None = None
    for layer_number, multiplier, path in sorted(files):
        rows = rows_of(read_json(path), path)
        if questions not in (None, texts := [row.get("question") for row in rows]):
            raise ValueError(f"{path.name} has other questions than the files before it: its items cannot be paired")
        questions = texts
        for item, row in enumerate(rows):
            try:
                matching = str(row["answer_matching_behavior"]).strip().strip("()")
                p_a, p_b = (float(row[name]) for name in ("a_prob", "b_prob"))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path.name}, item {item}: no letter and probabilities ({error!r})") from None
            yield Answer(item, layer_number, multiplier, matching, p_a, p_b)


def caa_dynamic_tables(clone: Path) -> dict[str, str]:
    """Return a table for each behaviour, by file name."""
    tables = {}
    for name in caa_dynamic.BEHAVIOURS:
        rows = [(*answer[:4], f"{answer.p_a:.6f}", f"{answer.p_b:.6f}") for answer in answers(clone, name)]
        tables[f"{caa_dynamic.PREFIX}{name}.csv"] = csv_text(caa_dynamic.COLUMNS, rows)
    return tables


def caa_tables(clone: Path) -> dict[str, str]:
    """Return the table of means, and for each behaviour a table of items that ``judge`` reads, by file name.

    A mean is that of the repository's own plots: the probability of the matching answer divided by that of both.
    """
    tables, means = {}, {}
    for name in caa.BEHAVIOURS:
        by_multiplier: dict[float, list[float]] = {}
        rows = []
        for answer in answers(clone, name, caa.LAYER):
            rows.append((answer.item, answer.multiplier, answer.matching, f"{answer.p_a:.6f}", f"{answer.p_b:.6f}"))
            both = answer.p_a + answer.p_b
            if both <= 0 or answer.matching not in ("A", "B"):
                raise ValueError(
                    f"{name}, multiplier {answer.multiplier:g}, item {answer.item}: no probability of A or B"
                )
            by_multiplier.setdefault(answer.multiplier, []).append(
                (answer.p_a if answer.matching == "A" else answer.p_b) / both
            )
        tables[f"caa_llama2_7b_chat_{name}.csv"] = csv_text(("item", "strength", "matching", "p_a", "p_b"), rows)
        means[name] = [
            round(sum(by_multiplier[m]) / len(by_multiplier[m]), 5) if m in by_multiplier else None
            for m in caa.MULTIPLIERS
        ]
    record = {"model": "Llama-2-7b-chat", "layer": caa.LAYER, "multipliers": caa.MULTIPLIERS, "p_matching": means}
    return tables | {caa.FILE: json.dumps(record, indent=1) + "\n"}
