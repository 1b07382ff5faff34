"""The methods that compete: one for each file in ``configs/methods``, with its settings."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lightning_steer import methods
from lightning_steer.config_files import load
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.resources import resource_path
from lightning_steer.workflows.trials import FURTHER

RANDOM, REFERENCE, PROMPT = "random_direction", "mean_difference", "prompt"
DRAWS = 3
"""Random directions: how many are tried in each cell."""
NOT_COMPETING = ("identity", "gated", "composed")
"""Files of what does nothing, and of what is made of other methods."""


class Entrant(NamedTuple):
    """A method with its settings."""

    name: str
    """Of its file, such as ``mera_mahalanobis``."""
    make: Callable[[int], SteeringMethod]
    """Makes an unfitted method from a width."""
    strengths: tuple[float, ...]
    """Those to try, from the weakest to the strongest: every other one of its own."""
    further: tuple[tuple[float, ...], ...]
    """What is tried next where the strongest so far does best."""
    part: str
    """Part of a block that it steers, `block` or `heads`."""
    made: dict[str, Any]
    """Class and arguments."""

    @property
    def settings(self) -> dict[str, Any]:
        """Return all that its numbers depend on, to be stored with them."""
        return {**self.made, "strengths": self.strengths, "further": self.further, "part": self.part}

    @property
    def trained(self) -> bool:
        """Whether it is trained through the output."""
        return self.make(8).trained


def entrants() -> list[Entrant]:
    """Return all methods in alphabetical order, random directions as ``random_direction 1`` and so on."""
    listed = []
    for path in sorted(Path(resource_path("configs/methods")).glob("*.yaml")):
        if path.stem in NOT_COMPETING:
            continue
        settings = load(path.read_text())["model"]["init_args"]
        chosen = settings["method"]
        kind = getattr(methods, chosen["class_path"] if isinstance(chosen, dict) else chosen)
        init_args = chosen.get("init_args", {}) if isinstance(chosen, dict) else {}
        strengths = tuple(map(float, settings.get("strengths", kind.default_strengths)))
        further = FURTHER if "strengths" not in settings and kind.strength_range[1] == float("inf") else ()
        part = "heads" if kind is methods.HeadSteering else "block"
        makes = {path.stem: init_args}
        if path.stem == RANDOM:
            makes = {f"{RANDOM} {i + 1}": {"seed": i} for i in range(DRAWS)}
        thinned = strengths[(len(strengths) - 1) % 2 :: 2]  # the strongest stays
        for name, settings in makes.items():
            made = {"class": kind.__name__, **settings}
            listed.append(Entrant(name, partial(kind, **settings), thinned, further, part, made))
    return listed
