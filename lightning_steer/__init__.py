"""Train and evaluate activation steering.

The public names are loaded when they are first used, so that ``import lightning_steer`` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_steer.data.behaviours.pairs import ContrastPair, read_pairs
    from lightning_steer.lm.language_model import LLM
    from lightning_steer.outcomes import judge
    from lightning_steer.vectors import SteeringVector, load
    from lightning_steer.workflows.fit import fit
    from lightning_steer.workflows.steer import steer

__all__ = ["LLM", "ContrastPair", "SteeringVector", "fit", "judge", "load", "read_pairs", "steer"]

_HOMES = {
    "ContrastPair": "data.behaviours.pairs",
    "LLM": "lm.language_model",
    "SteeringVector": "vectors",
    "fit": "workflows.fit",
    "judge": "outcomes",
    "load": "vectors",
    "read_pairs": "data.behaviours.pairs",
    "steer": "workflows.steer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
