"""Composed: several methods at one site, each on the same activation: ``h' = h + sum of shift_i(h, strength_i)``.

With ``orthogonal`` a part adds only what is orthogonal to the shifts of the parts before it (Gram & Schmidt, for each
activation), so that what two parts share is added once. Whether parts add up in the network's output is another
question: the report's interaction answers it (:mod:`lightning_steer.statistics.interactions`). Ours.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations

ROUNDING = 1e-5
"""What is left of a shift below this share of it is rounding: it lies along the parts before it."""


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
        if not methods:
            raise UserError("methods is empty: name at least one to compose")
        if strengths is not None and len(strengths) != len(methods):
            raise UserError(f"strengths are one for each of {len(methods)} methods, not {len(strengths)}")
        self.methods = nn.ModuleList(make(width) for make in methods)
        self.strengths, self.orthogonal = strengths, orthogonal
        idle = {part.identity_strength for part in self.parts}
        if strengths is None and len(idle) > 1:
            names = ", ".join(f"{type(part).__name__} at {part.identity_strength:g}" for part in self.parts)
            raise UserError(f"the methods do nothing at different strengths ({names}): give each its own in strengths")
        if strengths is None:
            lows, highs = zip(*(part.strength_range for part in self.parts), strict=True)
            self.identity_strength, self.strength_range = idle.pop(), (max(lows), min(highs))
            self.default_strengths = self.parts[0].default_strengths
        else:
            self.strength_range = self._multiples(strengths)
            low, high = self.strength_range
            self.default_strengths = tuple(s for s in self.default_strengths if low <= s <= high) or (high,)
        self.classes = any(part.classes for part in self.parts)
        self.needs_sensitivity = any(part.needs_sensitivity for part in self.parts)
        self.trained = any(part.trained for part in self.parts)
        self.whole_rows = any(part.whole_rows for part in self.parts)

    @classmethod
    def of(cls, parts: Sequence[SteeringMethod], **settings: Any) -> "Composed":
        """Return the composition of methods that are fitted, each to rows of its own."""
        made = cls(parts[0].width, [lambda _width, part=part: part for part in parts], **settings)
        made.fitted = all(part.fitted for part in parts)
        return made

    @property
    def parts(self) -> list[SteeringMethod]:
        """The composed methods."""
        return [cast(SteeringMethod, part) for part in self.methods]

    def _multiples(self, strengths: Sequence[float]) -> tuple[float, float]:
        """Return the multiples of the parts' strengths that are valid for every part."""
        low, high = -math.inf, math.inf
        for part, full in zip(self.parts, strengths, strict=True):
            step = full - part.identity_strength
            if step:
                ends = sorted((end - part.identity_strength) / step + 0.0 for end in part.strength_range)
                low, high = max(low, ends[0]), min(high, ends[1])
        return low, high

    def part_strengths(self, strength: Tensor | float) -> list[Tensor | float]:
        """Return the strength of each part."""
        if self.strengths is None:
            return [strength] * len(self.parts)
        off = [part.identity_strength for part in self.parts]
        return [start + strength * (full - start) for start, full in zip(off, self.strengths, strict=True)]

    def estimate(self, seen: Activations) -> None:
        """Fit every part to the same rows."""
        if self.trained and not len(seen.error) and not all(part.trained for part in self.parts):
            raise UserError(
                "some of these methods are trained through the output and others fitted to rows: fit each by itself, "
                "then use Composed.of"
            )
        for part in self.parts:
            part.fit(seen)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        shifts = [part.shift(h, s) for part, s in zip(self.parts, self.part_strengths(strength), strict=True)]
        total = shifts[0]
        for shift in _orthogonal(shifts, h.shape) if self.orthogonal else shifts[1:]:
            total = total + shift
        return total


def _orthogonal(shifts: Sequence[Tensor], shape: torch.Size) -> Iterator[Tensor]:
    """Yield, from the second on, what each of ``shifts [*, n, d]`` adds to the span of those before it."""
    axes: list[Tensor] = []
    for number, shift in enumerate(shifts):
        rest = shift.float().expand(shape)
        size = rest.norm(dim=-1, keepdim=True)
        for axis in axes * 2:  # twice: the first time leaves rounding errors along nearly parallel axes
            rest = rest - (rest * axis).sum(-1, keepdim=True) * axis
        length = rest.norm(dim=-1, keepdim=True)
        new = length > ROUNDING * size
        rest = torch.where(new, rest, 0.0)
        axes.append(rest / length.where(new, 1.0))
        if number:
            yield rest
