"""What the released vectors of CAA_Dynamic were trained on, where that lies beside the outcomes."""

import json
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch

from lightning_steer import checkpoint, text_files
from lightning_steer.studies.published.caa_dynamic import BEHAVIOURS

LAYER = 13


class Training(NamedTuple):
    """Training pairs, and the vectors that came of them."""

    at_a: dict[str, tuple[int, int]]
    """By behaviour: pairs whose matching answer is A, and all pairs."""
    cosines: list[float]
    """Of each two behaviours' vectors."""


def read(data: Path) -> Training | None:
    """Return where the matching answers of the training pairs stood; None where the pairs or vectors are not there.

    Raises:
        ValueError: a file is not what was expected.
    """
    pairs = {name: data / "caa_dynamic" / f"{name}_generate.json" for name in BEHAVIOURS}
    vectors = {name: data / "caa_dynamic" / "vectors" / f"{name}_layer_{LAYER}.pt" for name in BEHAVIOURS}
    if not all(path.is_file() for path in (*pairs.values(), *vectors.values())):
        return None
    at_a = {}
    for name, path in pairs.items():
        try:
            letters = [row["answer_matching_behavior"].strip() for row in text_files.parse_json(text_files.read(path))]
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path.name} is not a list of pairs with answer_matching_behavior ({error!r})") from None
        at_a[name] = (sum(letter == "(A)" for letter in letters), len(letters))
    loaded = [checkpoint.load(path).double() for path in vectors.values()]
    cosines = [float(torch.cosine_similarity(a, b, dim=0)) for a, b in combinations(loaded, 2)]
    return Training(at_a, cosines)


def sentences(training: Training | None) -> list[str]:
    """Return what the training pairs say of the vectors; nothing where they are not there."""
    if training is None:
        return []
    pairs = ", ".join(f"{name} {count} of {n}" for name, (count, n) in training.at_a.items())
    low, high = min(training.cosines), max(training.cosines)
    return [
        f"In the training pairs the matching answer stands at A: {pairs}. The vectors of layer {LAYER} have cosines of "
        f"{low:.2f} to {high:.2f} with each other. That is as expected of one vector for a letter.",
        "",
    ]
