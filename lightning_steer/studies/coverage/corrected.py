"""Cells of changes scored by a biased judge and corrected by labels, compared with labels alone."""

import itertools
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lightning_steer.statistics import prediction_powered
from lightning_steer.statistics.kinds import Change, Intervals

ROWS = 2000
QUALITIES = {"good": 0.95, "fair": 0.7, "blind": 0.0}
"""How often the judge sees the true change; otherwise it sees that of another row."""


def corrected(
    random: Generator, sets: int, labels: int, gains: float, harms: float, bias: float, quality: float
) -> dict[str, tuple[Intervals, float, float]]:
    """Return the change with the judge and by labels alone; the judge moves a share ``bias`` of rows up by one."""

    def draw() -> NDArray:
        luck = random.random((ROWS, sets), dtype=np.float32)
        return (luck < gains).astype(np.int8) - (luck > 1 - harms)

    true = draw()
    judged = np.where(random.random(true.shape, dtype=np.float32) < quality, true, draw())
    judged = np.where(random.random(true.shape, dtype=np.float32) < bias, np.minimum(judged + 1, 1), judged)
    labels_of_labelled, scores_of_labelled, scores_of_others = (
        values.astype(np.float64) for values in (true[:labels], judged[:labels], judged[labels:])
    )
    with_judge, _ = prediction_powered.interval(labels_of_labelled, scores_of_labelled, scores_of_others, 1.0, True)
    alone = Change().interval(labels_of_labelled, None)
    return {"labels and judge": (with_judge, gains - harms, 2), "labels alone": (alone, gains - harms, 2)}


def designs() -> list[tuple[str, partial]]:
    """Return each design in words with the function that draws it."""
    changes = ((0.3, 0.05), (0.1, 0.05), (0.03, 0.01))
    settings = itertools.product((100, 200, 400), changes, (0.0, 0.1, 0.3), QUALITIES.items())
    return [
        (
            f"{n} labels of {ROWS:,}, gains {gains:g}, harms {harms:g}, bias {bias:g}, {name} judge",
            partial(corrected, labels=n, gains=gains, harms=harms, bias=bias, quality=quality),
        )
        for n, (gains, harms), bias, (name, quality) in settings
    ]
