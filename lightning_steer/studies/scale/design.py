"""How much is measured, and on which draws; and the names of the parts."""

import itertools
from typing import NamedTuple

from lightning_steer.studies.arena import language
from lightning_steer.studies.arena.tasks import LANGUAGE
from lightning_steer.studies.mera.settings import TASKS
from lightning_steer.studies.scale import declared
from lightning_steer.studies.scale.declared import LAYERS


class Design(NamedTuple):
    """Rows and draws."""

    documents: int
    prompts: int
    """Of each task."""
    random: int
    """Random directions."""
    document_seed: int
    fidelity_seed: int
    mera_draws: tuple[int, ...]
    mera_units: tuple[tuple[str, str], ...]
    """Pairs of a model and a task."""
    arena_tasks: tuple[str, ...]
    arena_seeds: tuple[int, int]
    """For the contrasts; and, at the small size only, for how far ranks repeat."""
    arena: language.LanguageScale
    small: bool = False
    """Whether a cell of MERA has few rows."""

    def scale(self, size: str) -> language.LanguageScale:
        """Return the arena's settings at a size."""
        layers = tuple(declared.depth(layer, LAYERS[size]) for layer in self.arena.layers)
        return self.arena._replace(layers=layers)


FULL = Design(
    declared.DOCUMENTS,
    declared.PROMPTS,
    declared.RANDOM_DIRECTIONS,
    declared.DOCUMENT_SEED,
    declared.FIDELITY_SEED,
    declared.MERA_DRAWS,
    tuple(itertools.product(("base", "tuned"), TASKS)),
    LANGUAGE,
    (declared.ARENA_SEED, declared.REFERENCE_SEED),
    language.LanguageScale(),
)
QUICK = Design(
    40, 20, 4, 0, 0, (0,), (("base", TASKS[0]), ("tuned", TASKS[0])), LANGUAGE[2:4], (0, 1), language.QUICK, small=True
)
"""To see that everything runs, on draws that no verdict rests on."""


def mera_name(size: str, model: str, task: str, mixture: str, draw: int) -> str:
    """Return the name of a cell of MERA's design."""
    return f"mera-{size}-{model}-{task}-{mixture.replace(' %', '').replace(' ', '_')}-{draw}"


def arena_name(size: str, task: str, seed: int) -> str:
    """Return the name of a cell of the arena."""
    return f"arena-{size}-{task}-{seed}"
