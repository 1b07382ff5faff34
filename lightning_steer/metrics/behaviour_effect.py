"""What steering does to a behaviour's likelihood: margin, preference, both halves, and the paper's table.

A row is a prompt, with the log-likelihood of the continuation that shows the behaviour and of the one that does not.
What a method was fitted to says what was meant. Intervals are over prompts or, where rows share one, over clusters.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_steer.metrics.clustered import UNIT, checked_cluster, jackknifed, means, single
from lightning_steer.metrics.evaluation import ChangeRange, Evaluation
from lightning_steer.metrics.interval import Estimate, bootstrap_weights, percentile
from lightning_steer.metrics.jackknife import leave_one_out
from lightning_steer.metrics.likelihood import (
    NEGATIVE,
    POSITIVE,
    QUARTERS,
    auc,
    cohens_d,
    promotion_table,
)


def behaviour_rows(base: Tensor, scores: Tensor, source: int = NEGATIVE, sink: int = POSITIVE) -> dict[str, Tensor]:
    """Every measure of every prompt.

    Args:
        base: ``[B, 2]`` unsteered log-likelihoods of the positive and the negative continuation, in nats per token.
        scores: ``[C, B, 2]`` those of C candidates.
        source: the continuation that steering was meant to make less likely.
        sink: the one that it was meant to make likelier.

    Returns:
        ``{name: [C, B]}``: ``margin`` positive - negative, ``preference`` whether the positive is likelier (a tie is
        one half), ``positive`` and ``negative`` themselves, ``wanted`` whether what was meant is likelier; the changes
        ``margin_change``, ``positive_change`` and ``negative_change``; and the unsteered ``positive_before`` and
        ``negative_before``.
    """
    if scores.isnan().any() or base.isnan().any():
        raise ValueError("a continuation has the log-likelihood NaN: it cannot be compared")
    before, after = base.double(), scores.double()
    margin = after[..., POSITIVE] - after[..., NEGATIVE]
    preference = (margin > 0).double() + (margin == 0).double() / 2
    change = after - before
    return {
        "margin": margin,
        "preference": preference,
        "positive": after[..., POSITIVE],
        "negative": after[..., NEGATIVE],
        "wanted": preference if sink == POSITIVE else 1 - preference,
        "margin_change": change[..., POSITIVE] - change[..., NEGATIVE],
        "positive_change": change[..., POSITIVE],
        "negative_change": change[..., NEGATIVE],
        "positive_before": before[..., POSITIVE].expand_as(margin),
        "negative_before": before[..., NEGATIVE].expand_as(margin),
    }


def behaviour_estimates(rows: Mapping[str, Tensor], cluster: Tensor) -> dict[str, list[Estimate]]:
    """Estimates of C candidates with jackknife-t intervals over clusters.

    Args:
        rows: columns of :func:`behaviour_rows` as ``[n, C]``, or ``[n]`` of a single candidate.
        cluster: ``[n]`` the prompt or topic of each row, as any numbers.

    Returns:
        ``{name: [C estimates]}``: the mean of every column but the unsteered ones, and ``auc`` and ``cohens_d`` of
        positives against negatives with their changes.
    """
    rows = single(rows)
    cluster = checked_cluster(cluster, len(next(iter(rows.values()))))
    kept = {name: column for name, column in rows.items() if not name.endswith("_before")}
    found = means(kept, cluster, dict.fromkeys(("preference", "wanted"), UNIT))
    if "positive" not in rows:
        return found
    weights = leave_one_out(cluster)
    before, after = (torch.stack([rows[f"positive{when}"], rows[f"negative{when}"]], -1) for when in ("_before", ""))
    for measure, within in ((auc, UNIT), (cohens_d, (-torch.inf, torch.inf))):
        name = measure.__name__
        whole, parts = measure(after), measure(after, weights)
        found[name] = jackknifed(whole, parts, within)
        found[f"{name}_change"] = jackknifed(whole - measure(before), parts - measure(before, weights))
    return found


def table_estimates(
    control: Tensor, steered: Tensor, cluster: Tensor | None = None, compat: bool = False, resamples: int = 2000
) -> list[list[Estimate]]:
    """The paper's table with bootstrap intervals over prompts: for each quarter (promotion, suppression).

    Its normaliser rests on two extremes, for which the jackknife does not hold.

    Args:
        control: ``[n, 2]`` unsteered log-likelihoods.
        steered: ``[n, 2]`` steered ones.
        cluster: ``[n]`` rows that are drawn together.
        compat: with the release's normaliser.
        resamples: bootstrap resamples.
    """
    weights = bootstrap_weights(len(control), resamples, cluster=cluster)
    value = promotion_table(control, steered, parts=QUARTERS, compat=compat)
    draws = promotion_table(control, steered, weights, QUARTERS, compat)
    n = len(control) if cluster is None else len(cluster.unique())
    return [
        [Estimate(float(value[q, i]), *percentile(draws[:, q, i]), n) for i in range(2)] for q in range(len(QUARTERS))
    ]


class BehaviourEffect(Evaluation):
    """Measures of steering a behaviour: what became likelier, what less likely, and by how much."""

    subject = "behaviours"
    headline = ("wanted", "preference", "margin", "margin_change", "positive_change", "negative_change")
    also = ("positive", "negative", "auc", "auc_change", "cohens_d", "cohens_d_change")
    shown = ("wanted", "preference")
    unit = "share of held-out prompts"
    success = "wanted"
    change = ChangeRange(-1.0, 1.0, whole=False)  # a tie counts one half

    def loss(self, scores: Tensor, batch: Any) -> Tensor:
        source, sink = direction(batch)
        return torch.nn.functional.softplus(scores[..., source] - scores[..., sink])

    def rows(self, base: Tensor, scores: Tensor, batch: Any) -> dict[str, Tensor]:
        return behaviour_rows(base, scores, *direction(batch))

    def estimates(self, rows: Mapping[str, Tensor], cluster: Tensor, weights: Tensor) -> dict[str, list[Estimate]]:
        return behaviour_estimates(rows, cluster)

    def verdict(self, metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> str:
        wanted, plain = metrics["wanted"], baselines["unsteered"]["wanted"]
        return (
            f"At strength {metrics['strength']['value']:g} the wanted continuation is the likelier one of the two in "
            f"{100 * wanted['value']:.1f} % [{100 * wanted['low']:.1f}, {100 * wanted['high']:.1f}] of {wanted['n']} "
            f"held-out prompts (unsteered: {100 * plain['value']:.1f} %). Continuations that show the behaviour "
            f"changed by {metrics['positive_change']['value']:+.3f} nats per token, the others by "
            f"{metrics['negative_change']['value']:+.3f}."
        )

    def warnings(self, metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> list[str]:
        found = []
        if max(metrics["positive_change"]["high"], metrics["negative_change"]["high"]) < 0:
            found.append("Both continuations became less likely: the margin moved, but so did everything else.")
        random = baselines.get("random", {}).get("margin_change")
        moved = metrics["margin_change"]["value"]
        if moved and metrics["margin_change"]["low"] <= 0 <= metrics["margin_change"]["high"]:
            found.append("The interval of the margin's change includes 0: this may be noise.")
        if random is not None and random["low"] <= moved <= random["high"]:
            found.append(
                f"Of the random directions of equal norm, 95 % change the margin by {random['low']:+.3f} to "
                f"{random['high']:+.3f}: the method's {moved:+.3f} is no more than that."
            )
        return found


def direction(batch: Any) -> tuple[int, int]:
    """Which continuation a batch's method moves away from, and which towards: ``(source, sink)``."""
    for asked, unwanted in zip(batch.x, batch.unwanted, strict=True):
        source = asked.options.index(unwanted.options[0])
        return source, POSITIVE + NEGATIVE - source
    return NEGATIVE, POSITIVE
