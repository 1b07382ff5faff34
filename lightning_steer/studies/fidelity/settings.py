"""What the study varies: models, where their vectors come from, bias types, strengths."""

from typing import NamedTuple

BIAS_TYPES = ("town", "trade")
BEHAVIOURS = ("myopia", "corrigible", "truthful")
STRENGTHS = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
"""Multiples of the mean difference; positive ones suppress stereotypes, negative ones promote them."""
LAYER = 2
"""The layer of all figures that show one: the middle of five, fixed before anything was looked at."""
NARROW_SEEDS = (1, 2, 3, 4, 5)
"""Of the trainings of the narrow model; all judge, and the first of them stands for it in what is exploratory."""
NARROW = tuple(f"narrow-{seed}" for seed in NARROW_SEEDS)
DRAWS = 20
"""Random directions, each as long as the vector they stand beside."""


class Arm(NamedTuple):
    """A model, and the model that its steering vector was made with."""

    name: str
    model: str
    vector: str
    chat: bool = False
    """Questions and answers in chat form instead of plain sentences."""

    @property
    def slug(self) -> str:
        """For files."""
        return self.name.replace(", ", "-").replace(" ", "_")


ARMS = (
    Arm("base", "base", "base"),
    Arm("tuned", "tuned", "tuned"),
    Arm("tuned, base vector", "tuned", "base"),
    Arm("tuned, chat", "tuned", "tuned", chat=True),
    Arm("narrow", NARROW[0], NARROW[0]),
    Arm("narrow, base vector", NARROW[0], "base"),
)


class Scale(NamedTuple):
    """How much is computed."""

    draws: int = DRAWS
    strengths: tuple[float, ...] = STRENGTHS
    layers: tuple[int, ...] | None = None
    """Null for all."""


QUICK = Scale(draws=8, strengths=(-2.0, -1.0, 0.0, 1.0, 2.0), layers=(1, 2, 3))
