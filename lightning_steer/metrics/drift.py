"""Off-target drift: what steering changes where nothing was meant to change.

On neutral text: ``KL(unsteered || steered)`` of the next-token distribution at every position, its mean and its 95th
percentile (a mean hides a few positions that are broken); perplexity ratio. A few texts may carry both means, and no
interval is known to hold for them. One holds for the probability that is lost, the mean over positions of
``1 - exp(-KL)`` in [0, 1]: exp(-KL) is what steering leaves, in the geometric mean, of the probability of the tokens
that were likely, and the total variation is ``sqrt(1 - exp(-KL))`` at most (Bretagnolle & Huber 1979).

On other tasks: the share of answers that changed, and entanglement, the root mean square over tasks of the change of
their mean scores (after Siu et al. 2025, arXiv 2509.13450; there over data sets, in points).

``weights [R, n]`` asks for R answers at once, ``[R, *]``, one for each re-weighting of the texts or items.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.metrics.columns import as_clusters, as_numbers
from lightning_steer.metrics.table import Table
from lightning_steer.metrics.weighted import weighted_mean
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Mean, Quantile


class TextDrift(NamedTuple):
    """What C edits did to n texts."""

    kl: Tensor
    """``[C, n, L]`` KL of the next token at every token, nats; NaN where the text has none, or none was steered yet."""
    base: Tensor
    """``[n]`` log-probability of each text's tokens after the first steered one, unsteered."""
    steered: Tensor
    """``[C, n]`` the same, steered."""
    tokens: Tensor
    """``[n]`` how many tokens were summed."""


def next_token_kl(base: Tensor, steered: Tensor) -> Tensor:
    """``[*]`` KL(base || steered) in nats from log-probabilities ``[*, V]``; infinite where steered rules a token out.

    Tokens that the base rules out (log-probability -inf) count nothing.
    """
    p = base.exp()
    return (p * (base - steered)).where(p > 0, 0.0).sum(-1).clamp_min(0)


def kl_mean(kl: Tensor, weights: Tensor | None = None) -> Tensor:
    """``[]`` mean over all positions of ``kl [n, L]``, texts by positions; NaN where a text has no position."""
    total = weighted_mean(kl.double().nansum(-1), weights)
    return total / weighted_mean((~kl.isnan()).sum(-1), weights)


def kl_percentile(kl: Tensor, weights: Tensor | None = None, share: float = 0.95) -> Tensor:
    """``[]`` the smallest of the values in ``kl [n, L]`` that at least ``share`` of all positions do not exceed."""
    value, order = kl.double().flatten().sort()  # NaN comes last
    text = order[: int((~value.isnan()).sum())] // kl.shape[1]
    drawn = kl.new_ones(1, len(kl), dtype=torch.float64) if weights is None else weights
    found = []
    for some in drawn.split(64):  # as many numbers as positions, for each re-weighting
        reached = some[:, text].cumsum(-1)
        wanted = share * reached[:, -1:] * (1 - 1e-12)  # a sum of weights is not exact
        found.append(value[torch.searchsorted(reached, wanted).squeeze(-1)])
    every = torch.cat(found)
    return every[0] if weights is None else every


def perplexity_ratio(base: Tensor, steered: Tensor, tokens: Tensor, weights: Tensor | None = None) -> Tensor:
    """``[*]`` perplexity of the steered model over that of the unsteered one; 1 is no change.

    Args:
        base: ``[n]`` log-probability of each text, summed over its tokens, in nats.
        steered: ``[n, *]`` the same under the steered models.
        tokens: ``[n]`` how many tokens were summed.
        weights: ``[R, n]`` re-weightings of the texts.
    """
    lost = base.double().reshape(-1, *[1] * (steered.dim() - 1)) - steered.double()
    per_text = weighted_mean(tokens, weights)
    return (weighted_mean(lost, weights) / per_text.reshape((*per_text.shape, *[1] * (steered.dim() - 1)))).exp()


def drift_estimates(found: TextDrift) -> dict[str, list[Estimate]]:
    """Drift of each of C edits on neutral texts, by name; intervals are over texts.

    ``neutral_kl``, ``neutral_kl_p95`` and ``perplexity_ratio`` are the drift as it is, ``neutral_probability_lost`` the
    mean over tokens of ``1 - exp(-KL)``, in [0, 1].
    """
    names = ("neutral_kl", "neutral_probability_lost", "neutral_kl_p95", "perplexity_ratio")
    columns: dict[str, list[Estimate]] = {name: [] for name in names}
    text = torch.arange(len(found.base))
    ratios = perplexity_ratio(found.base, found.steered.T, found.tokens).tolist()
    for kl in found.kl:
        known = ~kl.isnan()
        columns["neutral_kl"].append(Estimate.described(float(kl_mean(kl)), len(text), None, CARRIED))
        of_text = text[:, None].expand_as(kl)[known.cpu()]
        clusters = as_clusters(of_text)
        tail = Quantile(TAIL).estimate(as_numbers(kl[known]), clusters)[0]
        columns["neutral_kl_p95"].append(tail._replace(value=float(kl_percentile(kl))))
        columns["neutral_probability_lost"] += LOST.estimate(as_numbers(-torch.expm1(-kl[known].double())), clusters)
    columns["perplexity_ratio"] = [Estimate.described(ratio, len(text), None, CARRIED) for ratio in ratios]
    return columns


TAIL = 0.95
LOST = Mean(0, 1)
CARRIED = "none: it may be carried by a few texts"


def flips(base: Tensor, steered: Tensor, task: Tensor, weights: Tensor | None = None) -> Tensor:
    """``[K, *]`` or ``[R, K, *]`` share of answers that changed, in each of the K tasks.

    Args:
        base: ``[n]`` the unsteered model's answers, as numbers.
        steered: ``[n, *]`` the steered models'.
        task: ``[n]`` each item's task; tasks come in ascending order.
        weights: ``[R, n]`` re-weightings of the items.
    """
    return by_task(steered != base.reshape(-1, *[1] * (steered.dim() - 1)), task, weights)


def entanglement(base: Tensor, steered: Tensor, task: Tensor, weights: Tensor | None = None) -> Tensor:
    """``[*]`` or ``[R, *]`` root mean square over tasks of the change of their mean scores, in the scores' own units.

    0 only if no task's mean changed: harms and gains do not cancel between tasks, but do within one, so see the flips
    too. Never negative, hence too large by chance: changes that average 0 still read as their standard error.

    Args:
        base: ``[n]`` the unsteered model's score on each item of the tasks that were not steered.
        steered: ``[n, *]`` the steered models'.
        task: ``[n]`` each item's task.
        weights: ``[R, n]`` re-weightings of the items.
    """
    change = by_task(steered.double() - base.double().reshape(-1, *[1] * (steered.dim() - 1)), task, weights)
    return change.square().mean(0 if weights is None else 1).sqrt()


def by_task(rows: Tensor, task: Tensor, weights: Tensor | None = None) -> Tensor:
    """``[K, *]`` or ``[R, K, *]`` mean of ``rows [n, *]`` in each of the K tasks of ``task [n]``."""
    parts = [task == one for one in task.unique()]
    means = [weighted_mean(rows[part], None if weights is None else weights[:, part]) for part in parts]
    return torch.stack(means, 0 if weights is None else 1)


class Drift(Table):
    """Drift on neutral texts, the same for any split into batches or over processes.

    ``update`` takes the texts' positions ``row [B]``, ``kl [B, L]`` (NaN behind a text's end, L the same in every
    batch), ``base [B]`` and ``steered [B]`` summed log-probabilities and ``tokens [B]``.
    """

    def compute(self) -> dict[str, Tensor]:
        """``kl_mean``, ``kl_p95`` and ``perplexity_ratio``."""
        columns = super().compute()
        ratio = perplexity_ratio(columns["base"], columns["steered"], columns["tokens"])
        return {"kl_mean": kl_mean(columns["kl"]), "kl_p95": kl_percentile(columns["kl"]), "perplexity_ratio": ratio}
