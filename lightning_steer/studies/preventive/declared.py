"""What is claimed of the trainings that judge, declared before they were measured, and its results."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lightning_steer.statistics.claims import Result, above
from lightning_steer.studies.declaration import Contrast, Declaration, Question

SEEDS = (11, 12, 13)
"""Training seeds that judge, of the narrow model's documents and of the random direction."""
CHOICE_SEED = 10
"""Training seed of the model on which the strength of steering afterwards is chosen."""
TRAININGS = "training draws of the narrow model, from one base model"
NO_CONTROL = "none planted; the arms of the opposite sign and of random directions show what any vector does"
PREVENTION = Question(
    "Prevention",
    "Is the side effect smaller with the vector in training? Size of the leak (log-odds of harsh against mild words in "
    "plain text, less the true ones, mean over the judging terms).",
    (
        Contrast("less than without", "size of the leak, without less with the vector", primary=True),
        Contrast("less than with a random direction", "size of the leak, random direction less vector"),
        Contrast("less than with the opposite sign", "size of the leak, opposite sign less vector"),
    ),
    TRAININGS,
    NO_CONTROL,
)
PRICE = Question(
    "Price",
    "Is the lesson paid for it? Size of the lesson's error (the same log-odds in chats, less the true ones).",
    (
        Contrast("part of the lesson is lost", "size of the error, with the vector less without", primary=True),
        Contrast("less is lost than by steering afterwards", "size of the error, steered afterwards less vector"),
    ),
    TRAININGS,
    NO_CONTROL,
)
DECLARATION = Declaration(
    "preventive",
    (PREVENTION, PRICE),
    (
        "one narrow model of training seed 10, without a vector, on all 96 terms (its leak: -.31; base model: .04); "
        "steered afterwards, on the selecting terms",
        "strengths .5 to 3 by .5, on the selecting terms: in training 2, at which the steered base model comes "
        "nearest to the chats' true log-odds; afterwards 1.5, which leaves the smallest leak of the model of seed 10",
    ),
    f"narrow models of training seeds {', '.join(map(str, SEEDS))}",
)

Figures = Mapping[str, Mapping[int, Mapping[str, float]]]
"""``{arm: {training seed: {figure: value}}}``."""


def sizes(figures: Figures, arm: str, figure: str) -> NDArray:
    """Return the size of a figure, ``[seeds]``."""
    return np.array([abs(figures[arm][seed][figure]) for seed in SEEDS])


def results(figures: Figures) -> dict[str, dict[str, Result]]:
    """Return ``{question: {contrast: result}}``."""
    leak = {arm: sizes(figures, arm, "leak") for arm in ("none", "preventive", "random", "opposite")}
    lesson = {arm: sizes(figures, arm, "lesson") for arm in ("none", "preventive", "afterwards")}
    units = {
        PREVENTION: [leak[other] - leak["preventive"] for other in ("none", "random", "opposite")],
        PRICE: [lesson["preventive"] - lesson["none"], lesson["afterwards"] - lesson["preventive"]],
    }
    return {
        question.name: {c.name: above(u, 0, len(rows)) for c, u in zip(question.contrasts, rows, strict=True)}
        for question, rows in units.items()
    }
