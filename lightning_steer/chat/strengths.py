"""The strengths that a vector can be given: where it does nothing, how far it reaches, and the steps of a slider."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from lightning_steer import numbers
from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.vectors import SteeringVector

COLUMNS = 6
"""The most strengths side by side: more would be too narrow to read."""


class StrengthRange(NamedTuple):
    """Valid strengths of a method."""

    identity: float
    """Where it does nothing."""
    low: float
    high: float
    steps: list[float]
    """Positions of a slider, from the one end to the other."""


def strength_range(vector: SteeringVector) -> StrengthRange:
    """Return the range of a vector's strengths; the steps reach to twice the card's strength, in both directions."""
    method, chosen = vector.maps[0], vector.card.strength.value
    identity, low, high, tried = 0.0, -math.inf, math.inf, ()
    if isinstance(method, SteeringMethod):  # an imported vector is simply added
        identity, (low, high), tried = method.identity_strength, method.strength_range, method.default_strengths
    if math.isinf(high):
        unit = abs(chosen) / 10 or 0.1
        steps = [float(f"{step * unit:.10g}") for step in range(-20, 21)]
    else:  # thresholds, from the one that does nothing to the one that does most
        steps = sorted({identity, chosen, *tried}, key=lambda strength: abs(strength - identity))
    return StrengthRange(identity, low, high, steps)


def check_strengths(vector: SteeringVector, strengths: Sequence[float]) -> None:
    """Raise ValueError unless these are at most ``COLUMNS`` different strengths of the vector's method."""
    if not 1 <= len(strengths) <= COLUMNS:
        raise UserError(f"{len(strengths)} strengths were given: give 1 to {COLUMNS}, such as 0 1 2")
    numbers.finite("a strength", strengths)
    numbers.distinct("strengths", list(strengths))
    allowed = strength_range(vector)
    for strength in strengths:
        if not allowed.low <= strength <= allowed.high:
            raise UserError(
                f"strengths of {vector.card.method} lie between {allowed.low:g} and {allowed.high:g}, not at "
                f"{strength:g}: give others; at {allowed.identity:g} it does nothing"
            )
