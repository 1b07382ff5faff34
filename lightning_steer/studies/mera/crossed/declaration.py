"""The crossed design's declaration, made before its verdict draws are opened: every contrast and its two sides."""

from dataclasses import dataclass
from typing import Literal

from lightning_steer.studies.declaration import Contrast, Declaration, Direction, Question

PATHS = {"paper": ("lasso",), "ridge": ("ridge",), "logistic": ("logistic",), "any": ("lasso", "ridge", "logistic")}
"""Kinds of probe from which a penalty is chosen; the paper's are lasso penalties and least squares."""


@dataclass(frozen=True)
class Side:
    """One way to steer, with its penalty chosen in every cell."""

    direction: str
    dose: str = "adaptive"
    path: str = "paper"
    rule: str = "R2"
    """``R2``; ``gain``, on separate rows; or the name of a fixed probe."""

    def __str__(self) -> str:
        if self.dose == "constant" and self.direction not in ("w", "Sigma w"):
            return f"{self.direction}, constant"
        fixed = self.rule not in ("R2", "gain")
        kinds = {"paper": "lasso or least squares", "any": "any probe"}.get(self.path, self.path)
        return f"{self.direction}, {self.dose}, {self.rule if fixed else f'{kinds} by {self.rule}'}"


Other = Side | Literal["nothing", "label bias, fitted", "mean of 20 random", "best of 20 random"]


@dataclass(frozen=True)
class Comparison:
    """A contrast and the values that it is computed from."""

    contrast: Contrast
    left: Side
    right: Other = "nothing"
    figure: str = "spi"
    """``spi``, ``balanced_accuracy``, or ``rank`` correlation of R2 and SPI over the left side's path."""


def _of(
    name: str, left: Side, right: Other, direction: Direction, limit: float = 0.0, *, primary: bool = False,
    figure: str = "spi",
) -> Comparison:  # fmt: skip
    quantity = {"spi": "SPI deployed", "balanced_accuracy": "balanced accuracy deployed",
            "rank": "rank correlation of R2 and SPI deployed over the penalties"}[figure]  # fmt: skip
    difference = "" if right == "nothing" else f", less that of {right}"
    return Comparison(
        Contrast(name, f"{quantity} of {left}{difference}", direction, limit, primary), left, right, figure
    )


W, RIDGE = Side("w"), Side("w", path="ridge", rule="ridge 100")
SIGMA, COV, MEAN, GRADIENT = (
    Side(name) for name in ("Sigma w", "Cov(h, logit error)", "mean difference", "causal gradient")
)


def _constant(side: Side) -> Side:
    return Side(side.direction, "constant", side.path, side.rule)


QUESTIONS = {
    "Choice of the probe": (
        _of("ridge 100 beats R2", RIDGE, W, "above", primary=True),
        _of("R2 repairs nothing", W, "nothing", "within", 0.05),
        _of("gain beats R2, same probes", Side("w", rule="gain"), W, "above"),
        _of("gain beats R2, any probe", Side("w", path="any", rule="gain"), W, "above"),
        _of("logistic beats R2", Side("w", path="logistic"), W, "above"),
        _of("worse prediction, more repair: ridge, w", Side("w", path="ridge"), "nothing", "below", figure="rank"),
        _of("and along Sigma w", Side("Sigma w", path="ridge"), "nothing", "differs from", figure="rank"),
    ),
    "Direction": (
        _of("Sigma w beats w", SIGMA, W, "above", primary=True),
        _of("Cov is Sigma w", COV, SIGMA, "within", 0.05),
        _of("mean difference", MEAN, SIGMA, "differs from"),
        _of("causal gradient", GRADIENT, SIGMA, "differs from"),
        _of("w of a probe chosen by gain", Side("w", path="any", rule="gain"), SIGMA, "differs from"),
    ),
    "Dose": (
        _of("Sigma w", SIGMA, _constant(SIGMA), "differs from", primary=True),
        _of("Cov", COV, _constant(COV), "differs from"),
        _of("mean difference", MEAN, _constant(MEAN), "differs from"),
        _of("causal gradient", GRADIENT, _constant(GRADIENT), "differs from"),
        _of("w, R2", W, _constant(W), "differs from"),
        _of("w, ridge 100", RIDGE, _constant(RIDGE), "differs from"),
    ),
    "Controls": (
        _of("beats a random direction", SIGMA, "mean of 20 random", "above", primary=True),
        _of("beats the best of 20", SIGMA, "best of 20 random", "above"),
        _of("label bias, SPI", SIGMA, "label bias, fitted", "differs from"),
        _of("label bias, balanced accuracy", SIGMA, "label bias, fitted", "differs from", figure="balanced_accuracy"),
    ),
}
"""All contrasts of each question; Holm's correction runs over these."""
TEXTS = {
    "Choice of the probe": (
        "Along the probe's own weights w, as in the paper: does it matter by what the probe is chosen?",
        "'filter', planted: ridge 100 beats R2.",
    ),
    "Direction": ("With the probe chosen by R2: along what?", "'filter', planted: Sigma w beats w."),
    "Dose": (
        "Along the same direction: as far as the predicted error asks, or equally far in every row?",
        "'dose', planted: adaptive beats constant.",
    ),
    "Controls": (
        "What do random directions as long as the difference of the means, and one number for each label, reach?",
        "'w repairs', planted: the paper's own recipe repairs, so that a design which never finds it is broken.",
    ),
}
NETWORKS, EXPLORED_NETWORKS = (10, 11, 12), (0,)
DRAWS, EXPLORED_DRAWS = (20, 21, 22, 23, 24), (0,)
POCKET_DRAWS = DRAWS[:2]
"""Draws of the pocket models, whose rows cost a hundred times as much."""
REPEATS = 100
"""Repeats of each positive control."""

DECLARATION = Declaration(
    "MERA, crossed",
    tuple(
        Question(name, TEXTS[name][0], tuple(c.contrast for c in comparisons), "kinds of world", TEXTS[name][1])
        for name, comparisons in QUESTIONS.items()
    ),
    (
        "Pocket models, draws 0 and 1: a trial of version 0.1.0, after which the thresholds were lengthened (.001 to "
        "1e-6).",
        "Pocket models, draws 10 to 14: the table of version 0.1.0; draws 10 and 11 again by a reviewer with lasso and "
        "ridge penalties, from which ridge 100 and the first question come.",
        "Pocket base model, draw 0, two tasks, 10 % pull; networks of seed 0, draw 0, all seven kinds: every family "
        "was looked at before this was written. There OLS along w was certified nowhere, ridge 100 and logistic probes "
        "along w and every form of Sigma w in nearly all. The same kinds with few rows "
        "and short training, in a trial of the whole command.",
        "Positive controls, repeats 0 to 3: their latent scales were set so that the pattern is there.",
    ),
    "pocket models base and tuned, five tasks, balanced and 10 % pull, draws 20 and 21; six kinds of small networks, "
    "training seeds 10 to 12, draws 20 to 24. A kind of world counts once: the mean over its networks of the mean over "
    "tasks and draws. A seventh kind of network, which no direction repairs, counts false certificates only.",
)
