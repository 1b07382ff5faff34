"""How long a text may be for its tokens to be read the same whatever stands beside it in a batch."""

import math
from typing import Any


def longest_text(config: Any) -> float:
    """Return the most tokens of a text that a model of this configuration reads, or infinity.

    With longrope (Phi-3 of 128k tokens) the longest row of a batch decides with which frequencies all of its rows are
    read, so that a longer text would change its neighbours: the limit is the length at which they change. Dynamic
    frequencies change beyond ``max_position_embeddings``, which is the limit anyway.

    Args:
        config: the text configuration.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]  # one for each kind of layer
    changes = [kind.get("original_max_position_embeddings") for kind in kinds if kind.get("rope_type") == "longrope"]
    sizes = [getattr(config, "max_position_embeddings", None), *changes]
    return min((size for size in sizes if size), default=math.inf)


def why_shorter(config: Any) -> str:
    """Return what a message adds where the limit is below the length that the configuration names; else nothing."""
    named = getattr(config, "max_position_embeddings", None)
    if not named or longest_text(config) >= named:
        return ""
    return f" (of {named}: with longrope a longer text changes how its neighbours in a batch are read)"


class TooLongError(ValueError):
    """A text has more tokens than a model reads."""
