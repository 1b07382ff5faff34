"""Strengths of steering: numbers that a method can be given, and activations that a network can still read."""

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

LONGEST = math.sqrt(torch.finfo(torch.float32).max)
"""A longer activation has a square that float32 does not hold: a normalisation layer makes nothing of it."""


def check_strength(strength: Any, name: str = "strength") -> None:
    """Raise ValueError unless a strength is a finite number, or a tensor ``[]`` or ``[B]`` of finite numbers."""
    if isinstance(strength, Tensor):
        number = strength.dim() <= 1 and not strength.is_complex() and strength.dtype != torch.bool
        what = f"a tensor of shape {list(strength.shape)} and {strength.dtype}"
        values = strength.detach().double().flatten().tolist() if number else []
    else:
        number = isinstance(strength, Real) and not isinstance(strength, bool)
        what, values = repr(strength), [float(strength)] if number else []
    if not number:
        raise ValueError(f"{name} must be a number, or a tensor of shape [rows] with one for each row, not {what[:80]}")
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, not {value}")


def per_row(strength: Tensor, h: Tensor) -> Tensor:
    """Return strengths in a shape that goes with ``h``; raises ValueError unless there is one for each row of it."""
    if strength.shape != h.shape[: strength.dim()]:
        raise ValueError(
            f"strengths of shape {list(strength.shape)} do not go with activations of shape {list(h.shape)}: give a "
            "number, or one for each row"
        )
    return strength.reshape(*strength.shape, *[1] * (h.dim() - strength.dim()))


def check_readable(method: str, strength: Tensor | float, h: Tensor, steered: Tensor) -> None:
    """Raise ValueError naming the strength if steering has made an activation that the network cannot read.

    Args:
        method: its name.
        strength: a number, or a tensor that broadcasts against ``h``.
        h: ``[*, d]`` activations as they were; what was not readable before is left alone.
        steered: ``[*, d]`` the same, steered.
    """
    lengths = _lengths(steered)
    if bool((lengths < LONGEST).all()):
        return
    worse = ~(lengths < LONGEST) & (_lengths(h) < LONGEST)
    if bool(worse.any()):
        each = torch.as_tensor(strength, dtype=torch.float64, device=h.device)
        each = each.reshape(each.shape or [1] * h.dim()).expand(*h.shape[:-1], 1).squeeze(-1)
        first = each[worse][0].item()
        raise ValueError(
            f"strength {first:g} of {method} makes activations of length {lengths[worse][0].item():.3g} in "
            f"{str(h.dtype).removeprefix('torch.')}, which the network cannot read: take a strength nearer to 0"
        )


def _lengths(h: Tensor) -> Tensor:
    wide = torch.promote_types(h.dtype, torch.float32)
    return torch.linalg.vector_norm(h.detach(), dim=-1, dtype=wide)
