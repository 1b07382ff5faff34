"""Streamed float64 sums over rows, enough for linear regression, its cross-validation and its scores.

For rows h and targets y: n, sum (h-s), sum (y-t), sum (h-s)(h-s)', sum (h-s)(y-t), sum (y-t)^2, about a shift (s, t)
near the mean. Without the shift, a mean a thousand standard deviations away would cost six digits of every variance
(Chan, Golub & LeVeque 1983, The American Statistician 37:242). The sums of disjoint rows add up: over batches, folds
and ranks. float32 is not enough: the optimum for a rounded Gram has a duality gap of 1e-5 on the rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.errors import UserError


class Moments(NamedTuple):
    """Sums of K disjoint sets of rows (folds), for every leading problem ``*`` (layers, positions). All float64.

    A full set takes ``8 K d^2`` bytes per problem, 42 MB per fold at d = 2,304: if all layers together are too large,
    stream a few at a time, or solve them one by one with :meth:`at`.
    """

    count: Tensor
    """``[K]`` number of rows."""
    h: Tensor
    """``[K, *, d]`` sum of h - s."""
    y: Tensor
    """``[K, *]`` sum of y - t."""
    hh: Tensor
    """``[K, *, d, d]`` sum of (h - s)(h - s)'."""
    hy: Tensor
    """``[K, *, d]`` sum of (h - s)(y - t)."""
    yy: Tensor
    """``[K, *]`` sum of (y - t)^2."""
    s: Tensor
    """``[*, d]`` shift of h, the same for all folds; not a sum."""
    t: Tensor
    """``[*]`` shift of y."""

    @classmethod
    def about(cls, s: Tensor, t: Tensor, folds: int = 1) -> "Moments":
        """Return moments of no rows, shifted by ``s [*, d]`` and ``t [*]``, which processes that add up must share."""
        s, t = s.double(), t.double().expand(s.shape[:-1]).contiguous()
        vector, scalar = s.new_zeros(folds, *s.shape), s.new_zeros(folds, *t.shape)
        square = s.new_zeros(folds, *s.shape, s.shape[-1])
        return cls(s.new_zeros(folds), vector, scalar, square, vector.clone(), scalar.clone(), s, t)

    @classmethod
    def like(cls, h: Tensor, y: Tensor, folds: int = 1) -> "Moments":
        """Return moments of no rows, shifted by the means of a first batch ``h [*, n, d]``, ``y [n]`` or ``[*, n]``."""
        return cls.about(h.double().mean(-2), y.double().mean(-1), folds)

    def add(self, h: Tensor, y: Tensor, fold: Tensor | None = None) -> "Moments":
        """Add rows in place, best in hundreds, as every call updates the Grams of its folds.

        Args:
            h: ``[*, n, d]`` in any floating type.
            y: ``[n]``, or ``[*, n]`` if the problems have different targets.
            fold: ``[n]`` integers in 0..K-1, the fold of each row; None: fold 0.

        Raises:
            ValueError: shapes differ from the first batch's, a fold is out of range, or a value is not finite.
        """
        rows = h.shape[-2]
        if h.shape[:-2] + h.shape[-1:] != self.s.shape or y.shape[-1] != rows:
            raise UserError(
                f"moments of rows [*, d] = {list(self.s.shape)} cannot take h {list(h.shape)} with y {list(y.shape)}"
            )
        fold = torch.zeros(rows, dtype=torch.int64) if fold is None else fold.cpu()
        if len(fold) != rows or (rows and not 0 <= int(fold.min()) <= int(fold.max()) < len(self.count)):
            raise UserError(f"each of the {rows} rows needs a fold in 0..{len(self.count) - 1}, not {fold.tolist()}")
        x = h.to(self.s.device).double() - self.s.unsqueeze(-2)
        z = (y.to(self.s.device).double() - self.t.unsqueeze(-1)).expand(x.shape[:-1])
        if not (x.isfinite().all() and z.isfinite().all()):
            raise UserError("activations or targets hold NaN or infinite values; no regression can be fitted to them")
        for k in fold.unique().tolist():
            index = (fold == k).nonzero().squeeze(-1).to(x.device)
            x_k, z_k = (x, z) if len(index) == rows else (x.index_select(-2, index), z.index_select(-1, index))
            self.count[k] += len(index)
            self.h[k] += x_k.sum(-2)
            self.y[k] += z_k.sum(-1)
            self.hy[k] += (x_k.mT @ z_k.unsqueeze(-1)).squeeze(-1)
            self.yy[k] += z_k.square().sum(-1)
            _add_gram(self.hh[k], x_k)
        return self

    @property
    def sums(self) -> tuple[Tensor, ...]:
        """Return the fields that add up over ranks (``all_reduce(sum)`` in place) if all use the same shift."""
        return self[:6]

    def moved(self, s: Tensor, t: Tensor) -> "Moments":
        """Return the moments about another shift ``s [*, d]``, ``t [*]``; accurate if it lies near the rows, too."""
        n, ds, dt = self.count.reshape(-1, *[1] * self.t.dim()), self.s - s, self.t - t
        n_row = n.unsqueeze(-1)
        cross = self.h.unsqueeze(-1) * ds.unsqueeze(-2)
        return self._replace(
            h=self.h + n_row * ds,
            y=self.y + n * dt,
            hh=self.hh + cross + cross.mT + n_row.unsqueeze(-1) * ds.unsqueeze(-1) * ds.unsqueeze(-2),
            hy=self.hy + self.h * dt.unsqueeze(-1) + self.y.unsqueeze(-1) * ds + n_row * ds * dt.unsqueeze(-1),
            yy=self.yy + 2 * self.y * dt + n * dt.square(),
            s=s,
            t=t,
        )

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of rows, fold by fold, about this one's shift."""
        shifted = other.moved(self.s, self.t)
        return Moments._make([*(a + b for a, b in zip(self.sums, shifted.sums, strict=True)), self.s, self.t])

    def over(self, sets: Sequence[Sequence[int]]) -> "Moments":
        """Return unions of folds as new folds: ``over([range(K)])`` is all rows; unions of small folds are splits.

        Folds are added, never subtracted from a total: for a feature that varies only in held-out rows, subtraction
        would leave rounding noise as its training variance, by which standardising divides.
        """
        return Moments._make([*(_fold_sums(x, sets) for x in self.sums), self.s, self.t])

    def training(self) -> "Moments":
        """Return K training sets, each the union of all other folds, without another pass over the rows."""
        folds = range(len(self.count))
        if len(folds) < 2:
            raise UserError("cross-validation needs at least 2 folds, not 1")
        return self.over([[j for j in folds if j != k] for k in folds])

    def at(self, problem: int) -> "Moments":
        """Return one leading problem (layer) as views ``[K, 1, ...]``."""
        index = slice(problem, problem + 1)
        return Moments._make([self.count, *(x[:, index] for x in self.sums[1:]), self.s[index], self.t[index]])

    def squared_error(self, weight: Tensor, intercept: Tensor) -> Tensor:
        """Return ``[K, *, P]`` sum of (y - w.h - b)^2 for raw ``weight [K, *, P, d]`` and ``intercept [K, *, P]``."""
        b = intercept + (weight @ self.s.unsqueeze(-1)).squeeze(-1) - self.t.unsqueeze(-1)
        predicted_sum = (weight @ self.h.unsqueeze(-1)).squeeze(-1)
        quadratic = ((weight @ self.hh) * weight).sum(-1) - 2 * (weight @ self.hy.unsqueeze(-1)).squeeze(-1)
        n = self.count.reshape(-1, *[1] * self.t.dim(), 1)
        total = self.yy.unsqueeze(-1) + quadratic + n * b.square() + 2 * b * (predicted_sum - self.y.unsqueeze(-1))
        return total.clamp_min(0)  # a perfect fit may give a negative rounding error

    def rmse(self, weight: Tensor, intercept: Tensor) -> Tensor:
        """Return ``[K, *, P]`` root mean squared error, in the units of y; NaN for a fold without rows."""
        n = self.count.reshape(-1, *[1] * self.t.dim(), 1)
        return (self.squared_error(weight, intercept) / n).sqrt()

    def r2(self, weight: Tensor, intercept: Tensor) -> Tensor:
        """Return ``[K, *, P]`` explained share of y's variance in the fold; below 0 if its mean predicts better.

        NaN where y is constant.
        """
        n = self.count.reshape(-1, *[1] * self.t.dim())
        spread = self.yy - self.y.square() / n
        spread = torch.where(spread > 1e-12 * self.yy, spread, torch.nan).unsqueeze(-1)
        return 1 - self.squared_error(weight, intercept) / spread


def _fold_sums(sums: Tensor, sets: Sequence[Sequence[int]]) -> Tensor:
    """Add ``sums [K, ...]`` over sets of folds, one fold after the other, as Grams may take gigabytes."""
    totals = sums.new_zeros(len(sets), *sums.shape[1:])
    for total, folds in zip(totals, sets, strict=True):
        for k in folds:
            total += sums[k]
    return totals


def _add_gram(total: Tensor, x: Tensor) -> None:
    """Compute ``total [*, d, d] += x' x`` for ``x [*, n, d]``."""
    total, x = total.view(-1, *total.shape[-2:]), x.reshape(-1, *x.shape[-2:])
    if x.device.type != "cpu":
        total.baddbmm_(x.mT, x)
        return
    for problem_total, rows in zip(total, x.numpy(), strict=True):
        problem_total += torch.from_numpy(rows.T @ rows)  # numpy uses the symmetry (dsyrk), torch does not
