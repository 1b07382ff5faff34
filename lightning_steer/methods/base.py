"""The base class: a steering method is a map of the residual stream, ``h -> h + shift(h, strength)``."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from lightning_steer.errors import UserError
from lightning_steer.records import Activations

THRESHOLDS = (0.75, 0.36, 0.099, 0.02, 0.004, 7.6e-4, 1.5e-4, 2.8e-5, 5.3e-6, 1.0e-6)
"""Error thresholds that a search tries for the methods of the MERA family, from the weakest shift to the strongest."""


class SteeringMethod(nn.Module, ABC):
    """One fitted map of a residual stream of ``width`` d, shape and dtype kept. Wrappers set these for themselves:"""

    identity_strength: float = 0.0  # the strength at which the map is exactly the identity
    strength_range: tuple[float, float] = (-math.inf, math.inf)  # valid strengths
    default_strengths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # weakest first
    classes: bool = True  # fit needs both positive and negative rows
    needs_sensitivity: bool = False  # fit needs the output's gradients by the rows
    trained: bool = False  # fit only creates parameters, to be trained through the network
    whole_rows: bool = False  # decides at the last token of a prompt what holds for its whole row

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.fitted = False

    @abstractmethod
    def estimate(self, seen: Activations) -> None:
        """Fill buffers from ``seen`` (float64), or set up parameters."""

    @abstractmethod
    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        """Return the change of ``h [*, n, d]``; ``strength`` is a number or broadcasts against ``h``."""

    def fit(self, seen: Activations) -> "SteeringMethod":
        """Fit the map to activations; raises ValueError for a wrong width, values not finite, or a missing class."""
        if seen.h.shape[-1] != self.width:
            raise UserError(f"activations are {seen.h.shape[-1]} wide, but this map was made for {self.width}")
        if not seen.h.isfinite().all():
            raise UserError("activations hold NaN or infinite values; nothing can be fitted to them")
        below, rows = int((seen.error < 0.5).sum()), len(seen.error)
        if self.classes and not 0 < below < rows:
            raise UserError(f"rows with errors below and above 0.5 are both needed, not {below} and {rows - below}")
        self.estimate(seen._replace(h=seen.h.double()))
        self.fitted = True
        for tensor in (*self.buffers(), *self.parameters()):  # laid out as after loading: identical results
            tensor.data = tensor.data.to(seen.h.device, torch.float32).contiguous()
        return self

    def forward(self, h: Tensor, strength: Tensor | float = 1.0) -> Tensor:
        """Steer ``h [*, n, d]``; a tensor of strengths holds one value per row, ``strength.shape == h.shape[:k]``."""
        if not self.fitted:  # an unfitted map would pass for the identity
            raise UserError(f"{type(self).__name__} is not fitted: call fit, or load a checkpoint, before steering")
        if isinstance(strength, Tensor) and strength.dim():
            strength = strength.reshape(*strength.shape, *[1] * (h.dim() - strength.dim()))
        return h + self.shift(h, strength).to(h.dtype)

    def get_extra_state(self) -> Tensor:
        """Return whether the map is fitted; saved with the buffers."""
        return torch.tensor(self.fitted)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore whether the map is fitted."""
        self.fitted = bool(state)
