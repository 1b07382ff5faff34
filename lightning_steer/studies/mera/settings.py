"""The study's settings: which vary, and which are fixed.

All were set before any result was seen, except the range of the thresholds: it ended at .001 in a trial (draws 0 and 1
of the quick form), where the paper's own grid, which ends at 0, certified more. The study uses other draws.
"""

import numpy as np

from lightning_steer.data.pocket.tasks import NAMES

TASKS = NAMES
MIXTURES = {"balanced": None, "10 % pull": 0.1}
"""Share of prompts whose right label is the one that the cue pulls towards; None: all labels equally often."""
MODELS = ("base", "tuned")
DELTA = 0.01
"""Accepted risk of a certificate, the paper's."""
TRAIN, CALIBRATION, TEST = 3000, 250, 1000
FOLDS = 5
PAPER = tuple(np.linspace(0, 1, 10).tolist())
"""The paper's thresholds, ten equal steps."""
THRESHOLDS = tuple((1 / (1 + np.exp(-np.linspace(1.1, -13.8, 10)))).tolist())
"""Our ten thresholds, equally spaced on the logit scale from .75 to 1e-6, where errors are clipped; from the weakest
steering to the strongest."""
MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Strengths of additive directions, in units of the difference of means."""
LOGITS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
"""Strengths of the additive error probe: how much it lowers the predicted logit."""
FIRST_DRAW, FIRST_QUICK_DRAW = 10, 0
"""The full study uses draws that were never tried before."""
PROMPT = "Think before you answer. "
NEUTRAL, ELSEWHERE = 100, 250
"""Neutral texts, and prompts of each other task, on which drift is measured."""
