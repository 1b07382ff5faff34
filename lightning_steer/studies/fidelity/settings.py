"""The study's settings: models, sources of their vectors, bias types, strengths."""

from typing import NamedTuple

BIAS_TYPES = ("town", "trade")
BEHAVIOURS = ("myopia", "corrigible", "truthful")
STRENGTHS = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
"""Multiples of the mean difference; positive ones suppress stereotypes, negative ones promote them."""
LAYER = 2
"""The layer of all figures that show one layer: the middle of five, fixed before any result was seen."""
NARROW_SEEDS = (1, 2, 3, 4, 5)
"""Training seeds of the narrow model; all are judged, and exploratory figures show the first."""
NARROW = tuple(f"narrow-{seed}" for seed in NARROW_SEEDS)
DRAWS = 20
"""Number of random directions; each is as long as the vector it is compared with."""


class Arm(NamedTuple):
    """A model and the model that its steering vector comes from."""

    name: str
    model: str
    vector: str
    chat: bool = False
    """Whether questions and answers are in chat form instead of plain sentences."""

    @property
    def slug(self) -> str:
        """Name in files."""
        return self.name.replace(", ", "-").replace(" ", "_")


ARMS = (
    Arm("base", "base", "base"),
    Arm("tuned", "tuned", "tuned"),
    Arm("tuned, base vector", "tuned", "base"),
    Arm("tuned, chat", "tuned", "tuned", chat=True),
    Arm("narrow", NARROW[0], NARROW[0]),
    Arm("narrow, base vector", NARROW[0], "base"),
)


class StudyScale(NamedTuple):
    """Size of the computation."""

    draws: int = DRAWS
    strengths: tuple[float, ...] = STRENGTHS
    layers: tuple[int, ...] | None = None
    """None for all."""


QUICK = StudyScale(draws=8, strengths=(-2.0, -1.0, 0.0, 1.0, 2.0), layers=(1, 2, 3))
