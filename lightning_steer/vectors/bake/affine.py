"""The affine form ``h' = h + M h + m`` of a method at one strength: the only edits that weights can hold.

Every token is changed by the same M and m. A method that looks at the token first (MERA, a gate, a one-sided ablation)
has no such form and is refused.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_steer.errors import UserError
from lightning_steer.methods.gated import Gated
from lightning_steer.vectors.constant import constant
from lightning_steer.vectors.file import state

CLOSE = 1e-4
"""Largest difference between a method's shift and its affine form, as a share of the shift's size: float32 rounding."""


class Affine(NamedTuple):
    """``h' = h + matrix @ h + offset``, in float64."""

    matrix: Tensor | None
    """``[d, d]``; None for a constant vector."""
    offset: Tensor
    """``[d]``."""

    def then(self, other: "Affine") -> "Affine":
        """Return this form followed by another one."""
        matrix, offset = self.matrix, self.offset + other.offset
        if other.matrix is not None:
            offset = offset + other.matrix @ self.offset
            matrix = other.matrix if matrix is None else matrix + other.matrix + other.matrix @ matrix
        return Affine(matrix, offset)


def affine(method: nn.Module, strength: float) -> Affine:
    """Return the affine form of a method at a strength; raise ValueError if it has none."""
    for part in method.modules():  # the rows below may all lie on one side of a gate
        if isinstance(part, Gated) and not part.condition.is_constant:
            raise UserError(
                "a gate decides for each prompt whether it is steered, and weights do the same to every prompt: keep "
                "the vector file and steer with hooks"
            )
    if set(state(method)) == {"vector"}:
        return Affine(None, constant(method, strength).double())
    width, copied = int(method.width), copy.deepcopy(method).cpu()  # type: ignore[arg-type]
    rows = torch.randn(64, width, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 64).unsqueeze(1)
    with torch.no_grad():

        def shift(h: Tensor) -> Tensor:
            return copied.shift(h, strength).expand_as(h).double()  # type: ignore[operator]

        offset = shift(torch.zeros(1, width))[0]
        size = max(1.0, float(offset.abs().max()))  # so that neither part of the sum drowns in the other's rounding
        matrix = ((shift(size * torch.eye(width)) - offset) / size).mT
        expected, moved = rows.double() @ matrix.mT + offset, shift(rows)
    scale = torch.maximum(moved.norm(dim=1), offset.norm()).clamp_min(1e-12)
    if not bool(((moved - expected).norm(dim=1) <= CLOSE * torch.maximum(scale, rows.norm(dim=1))).all()):
        raise UserError(
            f"{type(method).__name__} at strength {strength:g} is not affine: what it does depends on the token, and "
            "weights do the same to every token; keep the vector file and steer with hooks"
        )
    return Affine(matrix if bool(matrix.any()) else None, offset)


def removal(form: Affine) -> tuple[Tensor, float] | None:
    """Return ``(r [d], s)`` of a form ``h - s r r'h`` with a unit vector r; None for another form."""
    if form.matrix is None or bool(form.offset.any()):
        return None
    values, axes = torch.linalg.eigh((form.matrix + form.matrix.mT) / 2)
    largest = int(values.abs().argmax())
    direction, share = axes[:, largest], -float(values[largest])
    rest = form.matrix + share * torch.outer(direction, direction)
    return (direction, share) if float(rest.abs().max()) <= 1e-5 * abs(share) else None
