"""Likelihood evaluation of a behaviour: does steering make positive continuations likelier than negative ones?

Log-likelihoods are ``[n, *, 2]``: prompts, any interventions, then the continuation that shows the behaviour
(POSITIVE) and the one that does not (NEGATIVE), each the mean log-probability of its tokens, in nats per token.
``weights [R, n]`` give R results at once, ``[R, *]``, one for each re-weighting of the prompts.

The paper's table (Pres et al. 2024, arXiv 2410.17245) divides unsteered and steered log-likelihoods each by its own
``c = -(max LL of negatives + min LL of positives) / 2``, two extremes of n, so that the table can show a promotion of
positives though none became likelier. All other measures compare the log-likelihoods themselves. The drift of the
next-token distribution is in :mod:`lightning_steer.metrics.drift`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.metrics.weighted import weighted_mean

POSITIVE, NEGATIVE = range(2)
QUARTERS = (0.25, 0.5, 0.75, 1.0)


class Curves(NamedTuple):
    """The paper's figure: normalised log-likelihoods, negatives then positives, each sorted by the unsteered ones."""

    control: Tensor
    """``[2n]`` unsteered; the divider stands between positions n - 1 and n."""
    steered: Tensor
    """``[2n]`` steered, in the same order."""
    negative_band: tuple[float, float]
    """From the upper quartile of the unsteered negatives to their maximum."""
    positive_band: tuple[float, float]
    """From the minimum of the unsteered positives to their lower quartile."""


def mean_likelihood(logp: Tensor, scored: Tensor, compat: bool = False) -> Tensor:
    """Return ``[n]`` mean log-probability of each continuation's tokens, in nats.

    Args:
        logp: ``[n, T]`` log-probability of every token given those before it; ignored where not ``scored``.
        scored: ``[n, T]`` whether the token belongs to the continuation; at least one in every row.
        compat: divide by T, as the release does, so that the value of a continuation depends on its batch.
    """
    if not scored.any(1).all():
        raise UserError(f"row {int((~scored.any(1)).nonzero()[0])} has no continuation token to score")
    total = logp.double().where(scored, 0.0).sum(1)
    return total / (scored.shape[1] if compat else scored.sum(1))


def normaliser(ll: Tensor, drawn: Tensor, compat: bool = False) -> Tensor:
    """Return ``[R]`` the constant c that log-likelihoods are divided by.

    Args:
        ll: ``[n, 2]`` log-likelihoods.
        drawn: ``[R, n]`` whether each prompt counts.
        compat: the release's ``-max`` over all instead of the paper's mean of two extremes.
    """
    negative = ll[:, NEGATIVE].where(drawn, -torch.inf).amax(-1)
    if compat:
        return -torch.maximum(negative, ll[:, POSITIVE].where(drawn, -torch.inf).amax(-1))
    return -(negative + ll[:, POSITIVE].where(drawn, torch.inf).amin(-1)) / 2


def promotion_table(
    control: Tensor,
    steered: Tensor,
    weights: Tensor | None = None,
    parts: Sequence[float] = QUARTERS,
    compat: bool = False,
) -> Tensor:
    """Return the paper's table: ``[parts, 2]`` or ``[R, parts, 2]`` promotion of positives, suppression of negatives.

    Of the first ``int(part * n)`` prompts, positives sorted upwards and negatives downwards by the unsteered model:
    the mean of steered - control of the positives and of control - steered of the negatives, normalised.

    Args:
        control: ``[n, 2]`` unsteered log-likelihoods.
        steered: ``[n, 2]`` steered ones.
        weights: ``[R, n]`` integers, how often each prompt is drawn.
        parts: shares of the prompts, in (0, 1].
        compat: use the release's normaliser.
    """
    control, steered = _finite(control), _finite(steered)
    counts = control.new_ones(1, len(control)) if weights is None else weights
    first = (counts.new_tensor(parts) * counts.sum(1, keepdim=True) + 1e-9).floor()  # [R, parts]
    if first.min() < 1:
        raise UserError(
            f"{len(control)} prompts are too few for a part of {min(parts):g}: give at least 4 for quarters"
        )
    scaled = [ll / normaliser(ll, counts > 0, compat)[:, None, None] for ll in (control, steered)]
    change = scaled[1] - scaled[0]  # [R, n, 2]
    cells = []
    for half, gain in ((POSITIVE, change[..., POSITIVE]), (NEGATIVE, -change[..., NEGATIVE])):
        order = control[:, half].argsort(descending=half == NEGATIVE, stable=True)
        count, gain = counts[:, order].unsqueeze(1), gain[:, order].unsqueeze(1)
        used = torch.minimum((first.unsqueeze(-1) - count.cumsum(-1) + count).clamp_min(0), count)
        cells.append((used * gain).sum(-1) / first)
    table = torch.stack(cells, -1)
    return table[0] if weights is None else table


def sorted_curves(control: Tensor, steered: Tensor, compat: bool = False) -> Curves:
    """Return the curves of the paper's figure, from log-likelihoods ``[n, 2]``."""
    all_rows = control.new_ones(1, len(control), dtype=torch.bool)
    control, steered = (ll / normaliser(ll, all_rows, compat) for ll in (_finite(control), _finite(steered)))
    order = torch.argsort(control, dim=0, stable=True)
    before, after = (ll.gather(0, order).flip(1).T.flatten() for ll in (control, steered))
    negative, positive = control[:, NEGATIVE], control[:, POSITIVE]
    bands = (negative.quantile(0.75), negative.max()), (positive.min(), positive.quantile(0.25))
    return Curves(before, after, *((float(low), float(high)) for low, high in bands))


def margin(ll: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``[*]`` mean over prompts of LL(positive) - LL(negative), in nats per token."""
    return weighted_mean(_no_nan(ll)[..., POSITIVE] - ll[..., NEGATIVE], weights)


def preference(ll: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``[*]`` share of prompts whose positive continuation is likelier; a tie counts one half."""
    return weighted_mean(_higher(_no_nan(ll)[..., POSITIVE], ll[..., NEGATIVE]), weights)


def auc(ll: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``[*]`` probability that a random positive is likelier than a random negative; ties count one half."""
    row_weights = ll.new_ones(1, len(ll), dtype=torch.float64) if weights is None else weights
    areas = []
    for candidate in _no_nan(ll).reshape(len(ll), -1, 2).unbind(1):  # a table of all pairs for each candidate in turn
        higher = _higher(candidate[:, None, POSITIVE], candidate[None, :, NEGATIVE])
        areas.append((row_weights @ higher * row_weights).sum(-1) / row_weights.sum(-1) ** 2)
    area = torch.stack(areas, -1).reshape(-1, *ll.shape[1:-1])
    return area[0] if weights is None else area


def cohens_d(ll: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``[*]`` difference of the positives' and negatives' means in units of their pooled standard deviation."""
    n = len(ll) if weights is None else weights.sum(-1).reshape((-1, *[1] * (ll.dim() - 2)))
    centred = _no_nan(ll).double() - ll.double().mean(0)  # only differences count; keeps the squares small
    mean = weighted_mean(centred, weights)
    variance = (weighted_mean(centred.square(), weights) - mean.square()).sum(-1) / 2 * (n / (n - 1))
    means = ll.double().mean(0) + mean
    return (means[..., POSITIVE] - means[..., NEGATIVE]) / variance.clamp_min(0).sqrt()


def change_of_halves(control: Tensor, steered: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``[*, 2]`` mean of steered - control of the positives and of the negatives, in nats per token.

    A margin that grows because negatives fall is no promotion; if both fall, steering also does damage.
    """
    return weighted_mean(_no_nan(steered) - control.reshape(len(control), *[1] * (steered.dim() - 2), 2), weights)


def _higher(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 where a is higher, 1/2 for ties; the sign of the difference would be 0 for NaN, too."""
    return (a > b).double() + (a == b).double() / 2


def _no_nan(ll: Tensor) -> Tensor:
    if ll.isnan().any():
        raise UserError(f"the log-likelihood of row {int(ll.isnan().flatten(1).any(1).nonzero()[0])} is NaN")
    return ll


def _finite(ll: Tensor) -> Tensor:
    if ll.dim() != 2 or ll.shape[1] != 2:
        raise UserError(f"log-likelihoods of one candidate are [n, 2], positive and negative, not {list(ll.shape)}")
    if not ll.isfinite().all():
        raise UserError(f"the log-likelihood of row {int((~ll.isfinite()).any(1).nonzero()[0])} is NaN or infinite")
    return ll.double()
