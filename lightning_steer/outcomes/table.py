"""Outcomes of one measure: every unit at every setting, paired with the baseline."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_steer.errors import UserError
from lightning_steer.statistics.kinds import Change, Kind, Mean


class OutcomeSetting(NamedTuple):
    """A setting of the model: a strength, or a name."""

    name: str
    strength: float | None
    """None if settings are names."""


@dataclass(frozen=True)
class Measure:
    """Values of one measure: every unit (an item, or an item and seed) at every setting.

    Args:
        name: its name in the table.
        share: whether values are only 0 and 1.
        declared: whether the range was declared, or values are true and false; else nothing can be promised.
        low: smallest possible value; without a declared range, 0 if only 0 and 1 occur, else -inf.
        high: largest possible value; without a declared range, 1 if only 0 and 1 occur, else inf.
        settings: ``S`` settings, the baseline first, then from the weakest to the strongest.
        values: ``[S, n]``.
        items: ``[n]`` the item of each unit.
        seeds: ``[n]`` the seed of each unit as text; empty if there is none.
        cluster: ``[n]`` numbers of the units' clusters, or None; items are clusters where they have several seeds.
        clusters: names of the clusters by number.
        group: ``[n]`` numbers of the units' groups, or None.
        groups: names of the groups by number.
        position: ``[n]`` codes of the positions of the units' wanted answers, or None.
        positions: names of the positions by code.
    """

    name: str
    share: bool
    declared: bool
    low: float
    high: float
    settings: tuple[OutcomeSetting, ...]
    values: NDArray
    items: tuple[str, ...]
    seeds: tuple[str, ...]
    cluster: NDArray | None
    clusters: tuple[str, ...]
    group: NDArray | None
    groups: tuple[str, ...]
    position: NDArray | None = None
    positions: tuple[str, ...] = ()

    def changes(self) -> NDArray:
        """Return changes ``[S - 1, n]`` from the baseline; whole numbers for a share."""
        changes = self.values[1:] - self.values[0]
        return changes.astype(np.int8) if self.share else changes

    def kind_of_change(self) -> Kind:
        """Return the kind of a mean of changes."""
        width = self.high - self.low
        return Change() if self.share else Mean(-width, width)

    def units(self) -> list[str]:
        """Return the names ``[n]`` of the units that are drawn as a whole: clusters, or items."""
        return list(self.items) if self.cluster is None else [self.clusters[c] for c in self.cluster]

    def only(self, group: str) -> "Measure":
        """Return the units of one group; raise ValueError if there is no such group."""
        if group not in self.groups or self.group is None:
            known = ", ".join(self.groups) if self.groups else "none at all"
            raise UserError(f"{self.name!r} has no group {group!r}; it has {known}")
        rows = np.flatnonzero(self.group == self.groups.index(group))
        return self.part(rows, f"{self.name}[{group}]")

    def part(self, rows: NDArray, name: str | None = None) -> "Measure":
        """Return the units with these indices."""
        return replace(
            self,
            name=name or self.name,
            values=self.values[:, rows],
            items=tuple(self.items[i] for i in rows),
            seeds=tuple(self.seeds[i] for i in rows),
            cluster=None if self.cluster is None else self.cluster[rows],
            group=None if self.group is None else self.group[rows],
            position=None if self.position is None else self.position[rows],
        )

    def at(self, names: list[str]) -> "Measure":
        """Return the settings of these names."""
        places = {setting.name: i for i, setting in enumerate(self.settings)}
        indices = [places[name] for name in names]
        return replace(self, settings=tuple(self.settings[i] for i in indices), values=self.values[indices])
