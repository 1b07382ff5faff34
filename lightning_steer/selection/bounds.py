"""Old place of :mod:`lightning_steer.statistics.bounds`, until all consumers have moved."""

from lightning_steer.statistics.bounds import (
    Betting,
    Bound,
    EmpiricalBernstein,
    ExactPaired,
    Hoeffding,
    check,
)

__all__ = ["Betting", "Bound", "EmpiricalBernstein", "ExactPaired", "Hoeffding", "check"]
