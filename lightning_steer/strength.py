"""Strengths of steering: numbers that a method can be given, and activations that a network can still read."""

import functools
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from lightning_steer.errors import UserError

LONGEST = math.sqrt(torch.finfo(torch.float32).max)
"""A longer activation has a square that float32 does not hold: a normalisation layer makes nothing of it."""


class UnreadableError(UserError):
    """A strength makes activations that the network cannot read."""


def check_strength(strength: Any, name: str = "strength") -> None:
    """Raise ValueError unless a strength is a finite number, or a tensor ``[]`` or ``[B]`` of finite numbers."""
    if isinstance(strength, Tensor):
        valid = strength.dim() <= 1 and not strength.is_complex() and strength.dtype != torch.bool
        text = f"a tensor of shape {list(strength.shape)} and {strength.dtype}"
        values = strength.detach().double().flatten().tolist() if valid else []
    else:
        valid = isinstance(strength, Real) and not isinstance(strength, bool)
        text, values = repr(strength), [float(strength)] if valid else []
    if not valid:
        raise UserError(f"{name} must be a number, or a tensor of shape [rows] with one for each row, not {text[:80]}")
    for value in values:
        if not math.isfinite(value):
            raise UserError(f"{name} must be a finite number, not {value}")


def readable(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Wrap a map's ``forward(h, strength)``: one strength for each row, and nothing that the network cannot read.

    Raises:
        ValueError: from the wrapped function: strengths are as many as nothing in ``h``, or one is too strong.
    """

    @functools.wraps(forward)
    def checked(method: Any, h: Tensor, strength: Tensor | float = 1.0) -> Tensor:
        if isinstance(strength, Tensor) and strength.shape != h.shape[: strength.dim()]:
            raise UserError(
                f"strengths of shape {list(strength.shape)} do not go with activations of shape {list(h.shape)}: give "
                "a number, or one for each row"
            )
        steered = forward(method, h, strength)
        check_readable(type(method).__name__, strength, h, steered)
        return steered

    return checked


def check_readable(method: str, strength: Tensor | float, h: Tensor, steered: Tensor) -> None:
    """Raise UnreadableError naming the strength if steering has made an activation that the network cannot read.

    Args:
        method: its name.
        strength: a number, or one for each row of ``h``.
        h: ``[*, d]`` activations as they were; what was not readable before is left alone.
        steered: ``[*, d]`` the same, steered.
    """
    lengths = _lengths(steered)
    if bool((lengths < LONGEST).all()):
        return
    worse = ~(lengths < LONGEST) & (_lengths(h) < LONGEST)
    if bool(worse.any()):
        strengths = torch.as_tensor(strength, dtype=torch.float64, device=h.device)
        rows = strengths.reshape((*strengths.shape, *[1] * (worse.dim() - strengths.dim()))).expand(worse.shape)
        first = rows[worse][0].item()
        raise UnreadableError(
            f"strength {first:g} of {method} makes activations of length {lengths[worse][0].item():.3g} in "
            f"{str(h.dtype).removeprefix('torch.')}, which the network cannot read: take a strength nearer to 0"
        )


def _lengths(h: Tensor) -> Tensor:
    wide = torch.promote_types(h.dtype, torch.float32)
    return torch.linalg.vector_norm(h.detach(), dim=-1, dtype=wide)
