"""Composed: several methods at one site, each on the same activation: ``h' = h + sum of shift_i(h, strength_i)``.

With ``orthogonal`` a part adds only what is orthogonal to the shifts of the parts before it (Gram & Schmidt, for each
activation), so that what two parts share is added once. Whether parts add up in the network's output is another
question: the report's interaction answers it (:mod:`lightning_steer.statistics.interactions`). Ours.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class Composed(SteeringMethod):
    """Add the shifts of several methods. Strength: that of every part, or with ``strengths`` multiples of those.

    Args:
        methods: the parts, all fitted to the same rows; :meth:`of` takes fitted ones.
        strengths: of each part at a strength of 1; null gives every part the strength itself.
        orthogonal: take from every part what lies along the parts before it.
    """

    def __init__(
        self,
        width: int,
        methods: list[Callable[[int], SteeringMethod]],
        strengths: list[float] | None = None,
        orthogonal: bool = False,
    ) -> None:
        super().__init__(width)
        self.parts = [make(width) for make in methods]
        self.methods, self.strengths, self.orthogonal = nn.ModuleList(self.parts), strengths, orthogonal
        if not methods or (strengths is not None and len(strengths) != len(methods)):
            raise UserError(f"give at least one method, and strengths for each of {len(methods)}, not {strengths}")
        idle = [part.identity_strength for part in self.parts]
        if strengths is None and len(set(idle)) > 1:
            names = ", ".join(f"{type(part).__name__} at {part.identity_strength:g}" for part in self.parts)
            raise UserError(f"the methods do nothing at different strengths ({names}): give each its own in strengths")
        self.identity_strength = idle[0] if strengths is None else 0.0
        # the strength of a part is a line, start + slope * strength
        self.lines = [(0.0, 1.0) if strengths is None else (zero, strengths[i] - zero) for i, zero in enumerate(idle)]
        low, high = -math.inf, math.inf
        for part, (start, slope) in zip(self.parts, self.lines, strict=True):
            if slope:
                ends = sorted((limit - start) / slope + 0.0 for limit in part.strength_range)
                low, high = max(low, ends[0]), min(high, ends[1])
        self.strength_range = low, high
        tried = (self if strengths else self.parts[0]).default_strengths
        self.default_strengths = tuple(strength for strength in tried if low <= strength <= high) or (high,)
        for flag in ("classes", "needs_sensitivity", "trained", "whole_rows"):
            setattr(self, flag, any(getattr(part, flag) for part in self.parts))

    @classmethod
    def of(cls, parts: Sequence[SteeringMethod], **settings: Any) -> "Composed":
        """Return the composition of methods that are fitted, each to rows of its own."""
        made = cls(parts[0].width, [lambda _width, part=part: part for part in parts], **settings)
        made.fitted = all(part.fitted for part in parts)
        return made

    def part_strengths(self, strength: Tensor | float) -> list[Tensor | float]:
        """Return the strength of each part."""
        return [start + slope * strength for start, slope in self.lines]

    def estimate(self, seen: Activations) -> None:
        """Fit every part to the same rows."""
        for part in self.parts:
            part.fit(seen)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        shifts = [part.shift(h, s) for part, s in zip(self.parts, self.part_strengths(strength), strict=True)]
        added = _orthogonal([shift.float().expand(h.shape) for shift in shifts]) if self.orthogonal else shifts
        return sum(added[1:], start=shifts[0])


def _orthogonal(shifts: Sequence[Tensor]) -> list[Tensor]:
    """Return what each of ``shifts [*, n, d]`` adds to the span of those before it; below 1e-5 of it is rounding."""
    added: list[Tensor] = []
    for shift in shifts:
        rest = shift
        for axis in [normalize(each, dim=-1) for each in added] * 2:  # twice: the first time leaves rounding errors
            rest = rest - (rest * axis).sum(-1, keepdim=True) * axis
        added.append(rest.where(rest.norm(dim=-1, keepdim=True) > 1e-5 * shift.norm(dim=-1, keepdim=True), 0.0))
    return added
