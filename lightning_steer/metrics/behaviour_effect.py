"""Effects of steering on a behaviour's likelihood: margin, preference, both continuations, and the paper's table.

A row is a prompt, with the log-likelihoods of its positive and negative continuations. The batch that a method is
fitted to defines the intended direction. Intervals are over prompts or, where rows share one, over clusters.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.metrics.columns import as_clusters, as_numbers, estimate_columns
from lightning_steer.metrics.direction import direction, preference_loss
from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.metrics.likelihood import (
    NEGATIVE,
    POSITIVE,
    QUARTERS,
    auc,
    cohens_d,
    promotion_table,
)
from lightning_steer.metrics.wording import with_ends
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Kind, Mean, Smooth


def _pair_statistic(measure: Callable[..., Tensor], change: bool, weights: NDArray, *columns: NDArray) -> NDArray:
    """Return ``[R, C]`` a measure of positives against negatives under ``weights [R, n]``, or its change."""
    after, before = (torch.stack([torch.from_numpy(x) for x in pair], -1) for pair in (columns[:2], columns[2:]))
    w = torch.from_numpy(weights)
    return (measure(after, w) - measure(before, w) if change else measure(after, w)).numpy()


KINDS: dict[str, Kind] = {
    **dict.fromkeys(("preference", "intended_preferred"), Mean(0, 1)),  # a tie is one half
    **dict.fromkeys(("preference_change", "intended_preferred_change"), Mean(-1, 1)),
    **dict.fromkeys(("margin", "positive", "negative"), Mean()),
    **dict.fromkeys(("margin_change", "positive_change", "negative_change"), Mean()),
}
"""Kind of each column of :func:`behaviour_rows`, except the unsteered ones."""
OF_HALVES = {
    "auc": Smooth(partial(_pair_statistic, auc, False), 0, 1),
    "auc_change": Smooth(partial(_pair_statistic, auc, True), -1, 1),
    "cohens_d": Smooth(partial(_pair_statistic, cohens_d, False)),
    "cohens_d_change": Smooth(partial(_pair_statistic, cohens_d, True)),
}
"""Statistics of all rows together."""


def behaviour_rows(
    base: Tensor, scores: Tensor, negative: int = NEGATIVE, positive: int = POSITIVE
) -> dict[str, Tensor]:
    """Compute every measure of every prompt.

    Args:
        base: ``[B, 2]`` unsteered log-likelihoods of the positive and the negative continuation, in nats per token.
        scores: ``[C, B, 2]`` steered log-likelihoods of C interventions.
        negative: the continuation that steering should make less likely.
        positive: the continuation that it should make likelier.

    Returns:
        ``{name: [C, B]}``: ``margin`` positive - negative, ``preference`` whether the positive is likelier (a tie is
        one half), ``positive`` and ``negative`` themselves, ``intended_preferred`` whether the intended one is
        likelier; the changes ``margin_change``, ``positive_change`` and ``negative_change``; and the unsteered
        ``positive_before`` and ``negative_before``.
    """
    if scores.isnan().any() or base.isnan().any():
        raise UserError("a continuation has the log-likelihood NaN: it cannot be compared")
    before, after = base.double(), scores.double()
    margin = after[..., POSITIVE] - after[..., NEGATIVE]
    preference = (margin > 0).double() + (margin == 0).double() / 2
    change = after - before
    return {
        "margin": margin,
        "preference": preference,
        "positive": after[..., POSITIVE],
        "negative": after[..., NEGATIVE],
        "intended_preferred": preference if positive == POSITIVE else 1 - preference,
        "margin_change": change[..., POSITIVE] - change[..., NEGATIVE],
        "positive_change": change[..., POSITIVE],
        "negative_change": change[..., NEGATIVE],
        "positive_before": before[..., POSITIVE].expand_as(margin),
        "negative_before": before[..., NEGATIVE].expand_as(margin),
    }


def behaviour_estimates(
    rows: Mapping[str, Tensor], cluster: Tensor | None, kinds: Mapping[str, Kind] | None = None
) -> dict[str, list[Estimate]]:
    """Estimate the effects of C interventions, with intervals over clusters.

    Args:
        rows: columns of :func:`behaviour_rows` as ``[n, C]``, or ``[n]`` of a single intervention.
        cluster: ``[n]`` the prompt or topic of each row, as any numbers; None if rows are independent.
        kinds: kind of each column; None for ``KINDS``.

    Returns:
        ``{name: [C estimates]}``: the mean of every column except the unsteered ones, and ``auc`` and ``cohens_d`` of
        positives against negatives with their changes.
    """
    steered_rows = {name: column for name, column in rows.items() if not name.endswith("_before")}
    estimates = estimate_columns(steered_rows, KINDS if kinds is None else kinds, cluster)
    if "positive" not in rows:
        return estimates
    halves = [as_numbers(rows[name]) for name in ("positive", "negative", "positive_before", "negative_before")]
    for name, statistic in OF_HALVES.items():
        estimates[name] = statistic.estimate(*halves, cluster=as_clusters(cluster))
    return estimates


def table_estimates(
    control: Tensor, steered: Tensor, cluster: Tensor | None = None, compat: bool = False
) -> list[list[Estimate]]:
    """Return the paper's table without intervals: for each quarter (promotion, suppression).

    Its normaliser depends on two extremes of n, for which neither the jackknife nor the bootstrap is known to hold.

    Args:
        control: ``[n, 2]`` unsteered log-likelihoods.
        steered: ``[n, 2]`` steered ones.
        cluster: ``[n]`` cluster of each row.
        compat: use the release's normaliser.
    """
    value = promotion_table(control, steered, parts=QUARTERS, compat=compat)
    n, clusters = len(control), None if cluster is None else len(cluster.unique())
    reason = "none: no interval is known to hold for a normaliser of two extremes"
    return [[Estimate(float(cell), math.nan, math.nan, n, clusters, reason) for cell in quarter] for quarter in value]


class BehaviourEffect(Evaluation):
    """Metrics of steering a behaviour: which continuation became likelier or less likely, and by how much."""

    subject = "behaviours"
    headline = (
        "intended_preferred",
        "intended_preferred_change",
        "margin",
        "margin_change",
        "positive_change",
        "negative_change",
    )
    also = (
        *("preference", "preference_change", "positive", "negative"),
        *("auc", "auc_change", "cohens_d", "cohens_d_change"),
    )
    shown = ("intended_preferred",)
    unit = "share of held-out prompts"
    success = "intended_preferred"
    kinds = KINDS
    paired = ("intended_preferred", "preference")
    # for the others it depends on the intended direction
    higher_is_better: Mapping[str, bool | None] = {
        **dict.fromkeys(headline),
        "intended_preferred": True,
        "intended_preferred_change": True,
    }
    by_definition = dict.fromkeys(
        ("intended_preferred_change", "margin_change", "positive_change", "negative_change"), 0.0
    )

    def loss(self, scores: Tensor, batch: Any) -> Tensor:
        return preference_loss(scores, direction(batch, (NEGATIVE, POSITIVE)))

    def rows(self, base: Tensor, scores: Tensor, batch: Any) -> dict[str, Tensor]:
        ends = direction(batch, (NEGATIVE, POSITIVE))
        return self.with_changes(behaviour_rows(base, scores, *ends), behaviour_rows(base, base.unsqueeze(0), *ends))

    def estimates(self, rows: Mapping[str, Tensor], cluster: Tensor | None) -> dict[str, list[Estimate]]:
        return behaviour_estimates(rows, cluster, self.kinds)

    def verdict(self, metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> str:
        positive, plain, change = (
            metrics["intended_preferred"],
            baselines["baseline"]["intended_preferred"],
            metrics["intended_preferred_change"],
        )
        clusters = f" in {positive['clusters']} clusters" if positive["clusters"] else ""
        return (
            f"At strength {metrics['strength']['value']:g} the intended continuation is the likelier one of the two in "
            f"{100 * positive['value']:.1f} % of {positive['n']} held-out prompts{clusters}, unsteered in "
            f"{100 * plain['value']:.1f} %: a change of {with_ends(change, 100, 1, ' points')}{_maybe_none(change)}. "
            f"Continuations that show the behaviour changed by {with_ends(metrics['positive_change'])} nats per token, "
            f"the others by {with_ends(metrics['negative_change'])}."
        )

    def warnings(self, metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> list[str]:
        messages = []
        if max(metrics["positive_change"]["high"], metrics["negative_change"]["high"]) < 0:
            messages.append("Both continuations became less likely: whatever the margin did, so did everything else.")
        random = baselines.get("random_control", {}).get("margin_change")
        change = metrics["margin_change"]["value"]
        if change and metrics["margin_change"]["low"] <= 0 <= metrics["margin_change"]["high"]:
            messages.append("The interval of the margin's change includes 0: this may be noise.")
        if random is not None and change and random["low"] <= change <= random["high"]:
            messages.append(
                f"{random['n']} random directions of equal norm change the margin by {random['low']:+.3f} to "
                f"{random['high']:+.3f}: the method's {change:+.3f} is no more than that."
            )
        return messages


def _maybe_none(change: Mapping[str, Any]) -> str:
    shown = change["low"] > 0 or change["high"] < 0  # not without an interval, whose ends are NaN
    return "" if shown else ", so it may be none"
