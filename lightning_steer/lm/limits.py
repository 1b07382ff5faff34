"""The longest text that is read independently of the other texts in its batch."""

import math
from typing import Any

from lightning_steer.errors import UserError


def longest_text(config: Any) -> float:
    """Return the largest number of tokens of a text that a model of this configuration reads, or infinity.

    With longrope (Phi-3 of 128k tokens) the longest row of a batch determines the frequencies of all its rows,
    so a longer text would change its neighbours: the limit is the length at which they change. Dynamic
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
    """Return an explanation for messages if the limit is below the configured length; else an empty text."""
    configured = getattr(config, "max_position_embeddings", None)
    if not configured or longest_text(config) >= configured:
        return ""
    return f" (of {configured}: with longrope a longer text changes how its neighbours in a batch are read)"


class TooLongError(UserError):
    """A text has more tokens than a model reads."""
