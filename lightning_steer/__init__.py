"""Train and evaluate activation steering.

The public names are loaded when they are first used, so that ``import lightning_steer`` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_steer.data.pairs import ContrastPair, read_pairs
    from lightning_steer.fitting import fit
    from lightning_steer.llm import LLM
    from lightning_steer.outcomes import judge
    from lightning_steer.steering import steer
    from lightning_steer.vectors import SteeringVector, load

__all__ = ["LLM", "ContrastPair", "SteeringVector", "fit", "judge", "load", "read_pairs", "steer"]

_HOMES = {
    "ContrastPair": "data.pairs",
    "LLM": "llm",
    "SteeringVector": "vectors",
    "fit": "fitting",
    "judge": "outcomes",
    "load": "vectors",
    "read_pairs": "data.pairs",
    "steer": "steering",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
