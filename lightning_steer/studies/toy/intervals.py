"""Means over networks, for results stored as one number for each network and target set."""

from typing import Any

from lightning_steer.statistics.intervals import mean_over_units

MEANING = (
    "Brackets: the least and the largest of the networks. They describe these networks and are no 95 % interval, since "
    "a few networks do not show how often another one fails."
)


def over_networks(values: Any, digits: int) -> str:
    """Return the mean of ``values [N][T]`` over networks, ``mean (least to largest network)``."""
    return mean_over_units(values).text(digits)
