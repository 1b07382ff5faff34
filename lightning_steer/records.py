"""Activations, as a network hands them to a steering method. Imports nothing of the project."""

from typing import NamedTuple

import torch
from torch import Tensor


class Activations(NamedTuple):
    """Rows of the residual stream at one site, and what a method may know about them.

    Leading dimensions ``*`` are independent problems side by side (layers, networks): one ``fit`` solves them all.
    """

    h: Tensor
    """``[*, n, d]`` residual-stream vectors."""
    error: Tensor
    """``[n]`` in [0, 1]: 0 where the row shows what is wanted, 1 where it shows the opposite."""
    value: Tensor
    """``[*, n, m]`` int64: the value of each of the m attributes to be steered (m = 1 in a single task)."""
    paired: bool
    """The i-th positive and the i-th negative row differ in nothing but what is to be steered."""
    heads: int = 1
    """Equal parts, side by side, of every row: attention heads if h is their outputs, else 1."""
    sensitivity: Tensor | None = None
    """``[*, n, m, d]``, for methods that ask: root probability of each of m outcomes times the gradient of its log."""

    @property
    def positive(self) -> Tensor:
        """``[*, n+, d]`` rows with error below one half."""
        return self.h[..., self.error < 0.5, :]

    @property
    def negative(self) -> Tensor:
        """``[*, n-, d]`` rows with error of one half or more."""
        return self.h[..., self.error >= 0.5, :]

    def concept(self, by_value: bool) -> Tensor:
        """``[*, n, k]`` indicators: of every value of every attribute, or (k = 1) of being positive."""
        if not by_value:
            return (self.error < 0.5).double().unsqueeze(-1).expand(*self.h.shape[:-1], 1)
        return torch.nn.functional.one_hot(self.value).flatten(-2).double()
