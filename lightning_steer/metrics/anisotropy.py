"""Anisotropy: how unevenly vectors fill their space, before and after subtracting their mean.

``cosine``               mean cosine over pairs of different rows, ``(|sum u|^2 - sum |u|^2) / (n (n - 1))`` with
                         u = h / |h|, computed without visiting the pairs;
``centred_cosine``       the same of x = h - mean;
``participation_ratio``  how many dimensions carry the variance, 1 for a line, d for a ball: ``(sum l)^2 / sum l^2`` of
                         the covariance's eigenvalues l, here as ``mean |x|^2 |y|^2 / mean (x . y)^2`` over pairs of
                         different rows, since the eigenvalues of n rows make it too small (1 / ratio by 1 / n);
``top_share``            ``max l / sum l``: the variance along the first principal component, too large with few rows.

A common mean makes the first large and does not affect the others. Sources: Ethayarajh 2019, arXiv 1909.00512
(cosine); Gao et al. 2017, bioRxiv 214262 (participation ratio); the estimate over pairs is ours.

Rows are ``h [n, *, d]``, with any number of sites; ``weights [R, n]`` give R results, ``[R, *]``. Subtracting the mean
of the same rows lowers the centred cosine by 1 / (n - 1), so its interval, and the top share's, comes from
``jackknife(..., debias=True)``; a bootstrap would repeat the bias instead.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_steer.metrics.weighted import weighted_mean


def cosine(h: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``[*]`` mean cosine over pairs of different rows; a row drawn twice does not pair with itself."""
    return _each(_cosine, h, weights)


def centred_cosine(h: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``[*]`` mean cosine of the rows minus their mean, which is recomputed under each weighting."""
    return _each(lambda h, w: _cosine(h - weighted_mean(h, w), w), h, weights)


def participation_ratio(h: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``[*]`` the number of dimensions that carry the variance; NaN without variance."""
    return _each(lambda h, w: _ratio(*_second_moments(h - weighted_mean(h, w), w)), h, weights)


def top_share(h: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``[*]`` share of the variance along the first principal component; NaN without variance."""
    return _each(lambda h, w: _top(_second_moments(h - weighted_mean(h, w), w)[0]), h, weights)


def unit(h: Tensor) -> Tensor:
    """Scale rows ``[..., d]`` to length 1 in float64; a row of zeros stays zero."""
    return torch.nn.functional.normalize(h.double(), dim=-1, eps=1e-300)


def _each(measure: Callable[[Tensor, Tensor], Tensor], h: Tensor, weights: Tensor | None) -> Tensor:
    """Apply a measure under each weighting in turn, as each has its own mean."""
    h = h.double()
    return measure(h, h.new_ones(len(h))) if weights is None else torch.stack([measure(h, w) for w in weights])


def _cosine(h: Tensor, w: Tensor) -> Tensor:
    units = unit(h)
    self_pairs = torch.tensordot(w.square(), units.square().sum(-1), 1)
    return (torch.tensordot(w, units, 1).square().sum(-1) - self_pairs) / (w.sum().square() - w.square().sum())


def _second_moments(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``sum w x x^T`` ``[*, d, d]``, and the rows' products with themselves, ``sum w^2 |x|^4`` ``[*]``.

    With fewer rows than dimensions, return rows times rows, which has the same eigenvalues.
    """
    self_terms = torch.tensordot(w.square(), x.square().sum(-1).square(), 1)
    x = (x * w.sqrt().reshape(-1, *[1] * (x.dim() - 1))).movedim(0, -2)  # [*, n, d]
    return (x.mT @ x if x.shape[-2] >= x.shape[-1] else x @ x.mT), self_terms


def _ratio(moments: Tensor, self_terms: Tensor) -> Tensor:
    squares, trace = moments.square().sum((-2, -1)), moments.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (trace.square() - self_terms) / (squares - self_terms)


def _top(moments: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(moments)[..., -1] / moments.diagonal(dim1=-2, dim2=-1).sum(-1)
