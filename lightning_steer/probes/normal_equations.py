"""Normal equations of a penalised regression: the centred, standardised Gram, and the conversion to raw units.

With X the standardised rows and y centred: C = X'X/n, c = X'y/n, p = y'y/n, and
``(1/2n) |y - Xu|^2 = u'Cu/2 - c'u + p/2``. The intercept needs no column: it is ``mean(y) - w . mean(h)``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.probes.moments import Moments

CONSTANT = 1e-12
"""A variance below this share of the mean square about the shift is rounding error: float64 has 16 digits."""


class Fit(NamedTuple):
    """P linear predictors ``w . h + b`` for every problem ``*``, in the raw units of h and y."""

    weight: Tensor
    """``[*, P, d]`` float64."""
    intercept: Tensor
    """``[*, P]`` float64."""

    @property
    def silent(self) -> Tensor:
        """Return ``[*, P]`` bool: all weights are zero, so no shift of h can change the prediction.

        The closed form of the smallest shift would divide 0 by 0 here; methods must not steer at this layer.
        """
        return (self.weight == 0).all(-1)

    def predict(self, h: Tensor) -> Tensor:
        """Return ``[*, P, n]`` predictions for rows ``h [*, n, d]``."""
        return self.weight @ h.to(self.weight.device).double().mT + self.intercept.unsqueeze(-1)


class NormalEquations(NamedTuple):
    """Regressions of y on h, one for each leading problem ``*``; all float64."""

    gram: Tensor
    """``[*, d, d]`` C; a correlation matrix if standardised. Rows and columns of constant features are zero."""
    cross: Tensor
    """``[*, d]`` c = X'y/n."""
    power: Tensor
    """``[*]`` p, the variance of y."""
    count: Tensor
    """``[*]`` n, the number of rows."""
    mean: Tensor
    """``[*, d]`` mean of h."""
    inverse_scale: Tensor
    """``[*, d]`` 1 / (standard deviation of h), or 1 if not standardised; 0 for constant features."""
    mean_y: Tensor
    """``[*]`` mean of y."""

    @classmethod
    def of(cls, moments: Moments, standardise: bool = True) -> "NormalEquations":
        """Centre the sums; folds become the first leading dimension of ``*``.

        Args:
            moments: sums over at least two rows in every fold.
            standardise: scale every feature to unit variance, so that a penalty treats outlier dimensions like all
                others; weights are converted back later. If False, penalties act on raw units.
        """
        n = moments.count.reshape(-1, *[1] * moments.t.dim()).expand(moments.y.shape)
        if (n < 2).any():
            raise UserError(f"every fold needs at least 2 rows to fit a line, not {moments.count.int().tolist()}")
        n_row = n.unsqueeze(-1)
        h, y = moments.h / n_row, moments.y / n  # means, relative to the shift
        square, square_y = moments.hh.diagonal(dim1=-2, dim2=-1) / n_row, moments.yy / n
        variance, power = square - h.square(), square_y - y.square()
        varies, varies_y = variance > CONSTANT * square, power > CONSTANT * square_y
        root = variance.where(varies, torch.ones_like(variance)).sqrt() if standardise else torch.ones_like(variance)
        inverse = varies / root
        gram = moments.hh / n_row.unsqueeze(-1)
        gram -= h.unsqueeze(-1) * h.unsqueeze(-2)
        gram *= inverse.unsqueeze(-1)
        gram *= inverse.unsqueeze(-2)
        cross = (moments.hy / n_row - h * y.unsqueeze(-1)) * inverse * varies_y.unsqueeze(-1)
        return cls(gram, cross, power * varies_y, n, moments.s + h, inverse, moments.t + y)

    def raw(self, weight: Tensor) -> Fit:
        """Convert ``weight [*, P, d]`` of standardised, centred rows to raw units, with the intercept."""
        weight = weight * self.inverse_scale.unsqueeze(-2)
        return Fit(weight, self.mean_y.unsqueeze(-1) - (weight @ self.mean.unsqueeze(-1)).squeeze(-1))
