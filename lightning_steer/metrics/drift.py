"""Off-target drift: changes by steering where nothing should change.

On neutral text: ``KL(unsteered || steered)`` of the next-token distribution at every position, its mean and its 95th
percentile (a mean hides a few broken positions); perplexity ratio. A few texts may dominate the mean KL and the ratio,
so no interval is known to hold for them. One holds for the lost probability, the mean over positions of
``1 - exp(-KL)`` in [0, 1]: exp(-KL) is the factor, in the geometric mean, by which steering reduces the probability of
likely tokens, and the total variation is at most ``sqrt(1 - exp(-KL))`` (Bretagnolle & Huber 1979).

On other tasks: the share of answers that changed, and entanglement, the root mean square over tasks of the change of
their mean scores (after Siu et al. 2025, arXiv 2509.13450; there over data sets, in points).

``weights [R, n]`` give R results at once, ``[R, *]``, one for each re-weighting of the texts or items.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.metrics.columns import as_clusters, as_numbers
from lightning_steer.metrics.weighted import weighted_mean
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Mean, Quantile


class TextDrift(NamedTuple):
    """The effect of C edits on n texts."""

    kl: Tensor
    """``[C, n, L]`` next-token KL at every token, in nats; NaN beyond a text and before its first steered token."""
    base: Tensor
    """``[n]`` log-probability of each text's tokens after the first steered one, unsteered."""
    steered: Tensor
    """``[C, n]`` the same of the steered model."""
    tokens: Tensor
    """``[n]`` number of tokens in the sums."""


def next_token_kl(base: Tensor, steered: Tensor) -> Tensor:
    """Return ``[*]`` KL(base || steered) in nats from log-probabilities ``[*, V]``.

    It is infinite if only ``steered`` rules out a token; tokens that ``base`` rules out (-inf) add nothing.
    """
    p = base.exp()
    lost = (base - steered).masked_fill_(p == 0, 0.0)  # in place: vocabularies are large
    return lost.mul_(p).sum(-1).clamp_min(0)


def kl_mean(kl: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``[]`` mean over all positions of ``kl [n, L]``, which is NaN at positions beyond a text."""
    total = weighted_mean(kl.double().nansum(-1), weights)
    return total / weighted_mean((~kl.isnan()).sum(-1), weights)


def kl_percentile(kl: Tensor, weights: Tensor | None = None, share: float = 0.95) -> Tensor:
    """Return ``[]`` the smallest value in ``kl [n, L]`` that at least ``share`` of all positions do not exceed."""
    value, order = kl.double().flatten().sort()  # NaN comes last
    text = order[: int((~value.isnan()).sum())] // kl.shape[1]
    row_weights = kl.new_ones(1, len(kl), dtype=torch.float64) if weights is None else weights
    percentiles = []
    for chunk in row_weights.split(64):  # each re-weighting needs memory for all positions
        cumulative = chunk[:, text].cumsum(-1)
        threshold = share * cumulative[:, -1:] * (1 - 1e-12)  # a sum of weights is not exact
        percentiles.append(value[torch.searchsorted(cumulative, threshold).squeeze(-1)])
    result = torch.cat(percentiles)
    return result[0] if weights is None else result


def perplexity_ratio(base: Tensor, steered: Tensor, tokens: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``[*]`` perplexity of the steered model over that of the unsteered one; 1 is no change.

    Args:
        base: ``[n]`` log-probability of each text, summed over its tokens, in nats.
        steered: ``[n, *]`` the same under the steered models.
        tokens: ``[n]`` number of tokens in the sums.
        weights: ``[R, n]`` re-weightings of the texts.
    """
    loss = base.double().reshape(-1, *[1] * (steered.dim() - 1)) - steered.double()
    per_text = weighted_mean(tokens, weights)
    return (weighted_mean(loss, weights) / per_text.reshape((*per_text.shape, *[1] * (steered.dim() - 1)))).exp()


def drift_estimates(drift: TextDrift) -> dict[str, list[Estimate]]:
    """Estimate the drift of each of C edits on reference texts; intervals are over texts.

    ``reference_kl``, ``reference_kl_p95`` and ``perplexity_ratio`` are as measured; ``reference_probability_lost`` is
    the mean over tokens of ``1 - exp(-KL)``, in [0, 1].
    """
    names = ("reference_kl", "reference_probability_lost", "reference_kl_p95", "perplexity_ratio")
    columns: dict[str, list[Estimate]] = {name: [] for name in names}
    text = torch.arange(len(drift.base))
    ratios = perplexity_ratio(drift.base, drift.steered.T, drift.tokens).tolist()
    for kl in drift.kl:
        present = ~kl.isnan()
        columns["reference_kl"].append(Estimate.described(float(kl_mean(kl)), len(text), None, CARRIED))
        text_of_position = text[:, None].expand_as(kl)[present.cpu()]
        clusters = as_clusters(text_of_position)
        tail = Quantile(TAIL).estimate(as_numbers(kl[present]), clusters)[0]
        columns["reference_kl_p95"].append(tail._replace(value=float(kl_percentile(kl))))
        columns["reference_probability_lost"] += LOST.estimate(
            as_numbers(-torch.expm1(-kl[present].double())), clusters
        )
    columns["perplexity_ratio"] = [Estimate.described(ratio, len(text), None, CARRIED) for ratio in ratios]
    return columns


TAIL = 0.95
LOST = Mean(0, 1)
CARRIED = "none: it may be carried by a few texts"


def flips(base: Tensor, steered: Tensor, task: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``[K, *]`` or ``[R, K, *]`` share of changed answers in each of the K tasks.

    Args:
        base: ``[n]`` the unsteered model's answers, as numbers.
        steered: ``[n, *]`` the steered models' answers.
        task: ``[n]`` each item's task; results are in ascending order of tasks.
        weights: ``[R, n]`` re-weightings of the items.
    """
    return by_task(steered != base.reshape(-1, *[1] * (steered.dim() - 1)), task, weights)


def entanglement(base: Tensor, steered: Tensor, task: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``[*]`` or ``[R, *]`` root mean square over tasks of the change of their mean scores, in score units.

    It is 0 only if no task's mean changed: harms and gains cancel within a task but not between tasks, so see the flips
    too. It is biased upwards: changes that average 0 still give about their standard error.

    Args:
        base: ``[n]`` the unsteered model's score on each item of the tasks that were not steered.
        steered: ``[n, *]`` the steered models' scores.
        task: ``[n]`` each item's task.
        weights: ``[R, n]`` re-weightings of the items.
    """
    change = by_task(steered.double() - base.double().reshape(-1, *[1] * (steered.dim() - 1)), task, weights)
    return change.square().mean(0 if weights is None else 1).sqrt()


def by_task(rows: Tensor, task: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``[K, *]`` or ``[R, K, *]`` mean of ``rows [n, *]`` in each of the K tasks of ``task [n]``."""
    masks = [task == number for number in task.unique()]
    means = [weighted_mean(rows[mask], None if weights is None else weights[:, mask]) for mask in masks]
    return torch.stack(means, 0 if weights is None else 1)
