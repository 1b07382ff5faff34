"""Metrics of steering one attribute of many: was it changed, and what else changed?

The mean accuracy over all A attributes of an unsteered network is already (A - 1) / A: it cannot show the effect.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.metrics.wording import percent
from lightning_steer.statistics.kinds import Change, Kind, Mean, Share


class Labels(NamedTuple):
    """The fields of a batch that the metrics read; data batches may have more."""

    y: Tensor
    """``[B, A]`` values of the samples."""
    y_positive: Tensor
    """``[B, A]`` values that the steered network should read; they differ from ``y`` only at the targets."""


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the last dimension where ``mask`` is true."""
    return (values * mask).sum(-1) / mask.sum(-1)


def attribute_effect(base: Tensor, scores: Tensor, y: Tensor, y_positive: Tensor) -> dict[str, Tensor]:
    """Compute the effect of steering on each row.

    Args:
        base: ``[B, A, K]`` log-probabilities of the unsteered network.
        scores: ``[C, B, A, K]`` log-probabilities of C steered networks.
        y: ``[B, A]`` values before.
        y_positive: ``[B, A]`` intended values; targets are where it differs from ``y``.

    Returns:
        ``{name: [C, B]}``: ``target_accuracy`` share of targets that read the intended value; ``target_unchanged``
        share that still read the old one; ``off_target_accuracy`` accuracy of the other attributes; ``mean_accuracy``
        accuracy over all; ``exact_match`` all right; ``drift_kl`` mean KL(base || steered) of the others, in nats;
        ``drift_flip`` share of the others whose reading changed; ``gap`` mean of log p(positive) - log p(old) over the
        targets; ``output_difference`` mean over all attributes of the total variation between both outputs, in [0, 1].
    """
    is_target = y != y_positive
    reading, base_reading = scores.argmax(-1), base.argmax(-1)
    right = (reading == y_positive).float()
    changes = attribute_drift(base, scores)
    positive, old = (scores.gather(-1, v.expand(scores.shape[:-1]).unsqueeze(-1)).squeeze(-1) for v in (y_positive, y))
    return {
        "target_accuracy": masked_mean(right, is_target),
        "target_unchanged": masked_mean((reading == y).float(), is_target),
        "off_target_accuracy": masked_mean(right, ~is_target),
        "mean_accuracy": right.mean(-1),
        "exact_match": right.prod(-1),
        "drift_kl": masked_mean(changes, ~is_target),
        "drift_flip": masked_mean((reading != base_reading).float(), ~is_target),
        "gap": masked_mean(positive - old, is_target),
        "output_difference": (scores.exp() - base.exp()).abs().sum(-1).mean(-1) / 2,
    }


def attribute_drift(base: Tensor, scores: Tensor) -> Tensor:
    """Return ``[..., A]`` KL(base || scores) of every attribute in nats, from log-probabilities ``[..., A, K]``."""
    return (base.exp() * (base - scores)).sum(-1).clamp_min(0)


KINDS: dict[str, Kind] = {
    **dict.fromkeys(
        (
            "target_accuracy",
            "target_unchanged",
            "off_target_accuracy",
            "mean_accuracy",
            "drift_flip",
            "output_difference",
        ),
        Mean(0, 1),
    ),
    **dict.fromkeys(("target_accuracy_change", "target_unchanged_change", "off_target_accuracy_change"), Mean(-1, 1)),
    "exact_match": Share(),
    "exact_match_change": Change(),
    "drift_kl": Mean(low=0),
    "gap": Mean(),
    "flip": Share(),
    "kl": Mean(low=0),  # of the profile
}
"""What each column estimates."""


class AttributeEffect(Evaluation):
    """Metrics of the toy laboratory: the target attributes, and all others, which should not change."""

    subject = "attributes"
    headline = ("target_accuracy", "target_unchanged", "off_target_accuracy", "exact_match", "drift_kl")
    paired = ("target_accuracy", "target_unchanged", "off_target_accuracy", "exact_match")
    also = (*(f"{name}_change" for name in paired), "mean_accuracy", "drift_flip", "output_difference")
    shown = ("target_accuracy", "target_unchanged", "off_target_accuracy", "exact_match")
    success = "exact_match"
    kinds = KINDS
    higher_is_better: Mapping[str, bool | None] = {
        "target_accuracy": True,
        "target_unchanged": False,
        "off_target_accuracy": True,
        "exact_match": True,
        "drift_kl": False,
    }
    by_definition = dict.fromkeys(("drift_kl", "drift_flip", "output_difference"), 0.0)

    def loss(self, scores: Tensor, batch: Labels) -> Tensor:
        positive = batch.y_positive.expand(scores.shape[:-1]).unsqueeze(-1)
        return -scores.gather(-1, positive).squeeze(-1).mean(-1)

    def rows(self, base: Tensor, scores: Tensor, batch: Labels) -> dict[str, Tensor]:
        labels = batch.y, batch.y_positive
        plain = attribute_effect(base, base.unsqueeze(0), *labels)
        return self.with_changes(attribute_effect(base, scores, *labels), plain)

    def profile(self, base: Tensor, scores: Tensor, batch: Labels) -> dict[str, Tensor]:
        flipped = (scores.argmax(-1) != base.argmax(-1)).float()
        target_mask = torch.where(batch.y == batch.y_positive, 0.0, torch.nan)
        return {"flip": flipped + target_mask, "kl": attribute_drift(base, scores) + target_mask}

    def verdict(self, metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> str:
        target, others, plain = (
            metrics["target_accuracy"],
            metrics["off_target_accuracy"],
            baselines["baseline"]["off_target_accuracy"],
        )
        return (
            f"At strength {metrics['strength']['value']:g} the target reads the intended value in {percent(target)} of "
            f"{target['n']} held-out rows; {percent(others)} of the other attributes are read right "
            f"(unsteered: {plain['value']:.1%})."
        )

    def warnings(self, metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> list[str]:
        messages = []
        bypass_share, patch = metrics["bypass"]["value"], baselines["oracle_patch"]["target_accuracy"]
        if bypass_share >= 0.3:
            messages.append(
                f"{min(bypass_share, 1):.0%} of the evidence for the target by-passes this site: even the positives' "
                f"own activations, put in its place, move the target in only {percent(patch)} of rows. A method that "
                "moves rows to where the positives are cannot work here; one trained through the output may, by "
                "pushing the site elsewhere than where samples are."
            )
        if baselines["baseline"]["off_target_accuracy"]["value"] < 0.95:
            messages.append(
                "The unsteered network reads fewer than 95 % of the attributes: this is not a steering result."
            )
        return messages
