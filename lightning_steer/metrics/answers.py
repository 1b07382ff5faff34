"""Metrics of tasks with known answers: the class-normalised error, and whether the answer is right.

``p(label) = sum over its written variants of P(variant | prompt) / the same sum over all labels``, ``E = 1 - p(true)``
(Hedström et al. 2025, arXiv 2510.13290). P is the probability of the whole continuation, never of its last token.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.metrics.columns import estimate_columns
from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.metrics.spi import QUANTILES, estimates
from lightning_steer.metrics.wording import random_reach, with_ends
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Change, Kind, Mean, Share


def label_probabilities(scores: Tensor, label_of: Tensor) -> Tensor:
    """Turn option scores into label probabilities: ``[..., options] -> [..., labels]`` float64, summing to 1.

    Args:
        scores: log-probabilities of the written variants, -inf for impossible ones.
        label_of: ``[options]`` the label of each variant; every label has a variant.

    Raises:
        ValueError: all of a row's labels are impossible, or a score is not a number.
    """
    label_of, labels = label_of.to(scores.device), int(label_of.max()) + 1
    label_scores = torch.stack([scores.double()[..., label_of == k].logsumexp(-1) for k in range(labels)], -1)
    if label_scores.isnan().any() or (label_scores.amax(-1) == -torch.inf).any():
        raise UserError("a row's labels all have probability 0 or none: the scores hold NaN or -inf")
    return label_scores.softmax(-1)


KINDS: dict[str, Kind] = {
    "accuracy": Share(),
    "accuracy_over_constant_class": Change(),
    "kl": Mean(low=0),
    "changed": Share(),
}
"""Kinds of single columns; for statistics of truth and both answers together see :func:`.spi.estimates`."""


class Answers(Evaluation):
    """Accuracy and error of a network's answers, compared with the unsteered network."""

    subject = "labelled prompts"
    headline = ("spi", "accuracy", "balanced_accuracy", "mcc", "error")
    also = (
        *("accuracy_base", "balanced_accuracy_base", "mcc_base", "error_base"),
        *("accuracy_change", "balanced_accuracy_change", "mcc_change", "error_change"),
        *(
            "f1",
            "precision",
            "recall",
            "answers_fixed",
            "answers_broken",
            "answers_still_wrong",
            "answers_still_right",
            "kl",
            "changed",
        ),
        *(f"error_q{100 * q:02.0f}" for q in QUANTILES),
    )
    shown = ("accuracy", "balanced_accuracy", "error")
    unit = "share of held-out rows, or mean error"
    success = "accuracy"
    kinds = KINDS
    higher_is_better: Mapping[str, bool | None] = {
        "spi": True,
        "accuracy": True,
        "balanced_accuracy": True,
        "mcc": True,
        "error": False,
    }
    by_definition = dict.fromkeys(("spi",), 0.0)

    def error(self, scores: Tensor, batch: Any) -> Tensor:
        """Return ``[...]`` E of ``scores [..., B, options]``; raises ValueError for a true label without an option."""
        p = label_probabilities(scores, batch.label_of)
        y = batch.y.to(p.device).long()
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < p.shape[-1]:
            raise UserError(f"labels are 0 to {p.shape[-1] - 1}, not {int(y.min())} to {int(y.max())}")
        return 1 - p.gather(-1, y.expand(p.shape[:-1]).unsqueeze(-1)).squeeze(-1)

    def loss(self, scores: Tensor, batch: Any) -> Tensor:
        p = label_probabilities(scores, batch.label_of)
        y = batch.y.to(p.device).long().expand(p.shape[:-1]).unsqueeze(-1)
        return -p.gather(-1, y).squeeze(-1).clamp_min(1e-12).log()

    def rows(self, base: Tensor, scores: Tensor, batch: Any) -> dict[str, Tensor]:
        before, after = label_probabilities(base, batch.label_of), label_probabilities(scores, batch.label_of)
        answer, y = after.argmax(-1), batch.y.to(after.device)
        log_ratio = before.clamp_min(1e-300).log() - after.clamp_min(1e-300).log()
        columns = {"truth": y, "answer_base": before.argmax(-1), "error_base": self.error(base, batch)}
        return {
            "accuracy": (answer == y).double(),
            "error": self.error(scores, batch),
            "answer": answer.double(),
            "kl": (before * log_ratio).sum(-1).clamp_min(0),
            "changed": (answer != columns["answer_base"]).double(),
            "labels": torch.full_like(answer, after.shape[-1]).double(),
            **{name: column.double().expand(answer.shape) for name, column in columns.items()},
        }

    def estimates(self, rows: Mapping[str, Tensor], cluster: Tensor | None) -> dict[str, list[Estimate]]:
        answers = (rows[name] for name in ("truth", "answer_base", "answer", "error_base", "error"))
        figures = estimates(*answers, classes=int(rows["labels"].flatten()[0]), cluster=cluster)
        columns = {name: column for name, column in rows.items() if name in self.kinds and name not in figures}
        return figures | estimate_columns(columns, self.kinds, cluster)

    def controls(
        self, unsteered: Mapping[str, Tensor], learned: Mapping[str, Tensor]
    ) -> Mapping[str, Mapping[str, Tensor]]:
        """Return the control that always answers the most frequent class of the fitting rows."""
        constant = float(learned["truth"].long().flatten().bincount().argmax())
        right = (unsteered["truth"] == constant).double()
        answer = torch.full_like(unsteered["answer"], constant)
        changed, kl = (answer != unsteered["answer_base"]).double(), torch.full_like(right, torch.inf)
        columns = {"answer": answer, "accuracy": right, "error": 1 - right, "changed": changed, "kl": kl}
        return {"constant_class": {**unsteered, **columns}}

    def verdict(self, metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> str:
        fixed, broken = metrics["answers_fixed"]["value"], metrics["answers_broken"]["value"]
        if fixed == broken == 0:
            return f"No answer changed between right and wrong: the accuracy stays {metrics['accuracy']['value']:.3f}."
        return (
            f"Accuracy went from {metrics['accuracy_base']['value']:.3f} to {metrics['accuracy']['value']:.3f} (SPI "
            f"{metrics['spi']['value']:+.2f}): {fixed:.1%} of the rows were set right, {broken:.1%} were right and are "
            "wrong now."
        )

    def warnings(self, metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> list[str]:
        messages, value = [], {name: estimate["value"] for name, estimate in metrics.items()}
        if value["spi"] > 0 >= metrics["accuracy_change"]["low"]:  # SPI has no interval for clustered rows
            messages.append("The interval of the change of accuracy includes 0, so SPI may be noise.")
        if value["spi"] > 0:
            messages += _class_flip(metrics["balanced_accuracy_change"], metrics["mcc_change"])
        random = baselines.get("random_control", {}).get("spi")
        if random and value["spi"] > 0 and random["high"] >= value["spi"]:
            messages.append(f"A push in a random direction may give this SPI: {random_reach(random, value['spi'])}.")
        constant = metrics.get("accuracy_over_constant_class")
        if constant and value["spi"] > 0 and not constant["low"] > 0:
            messages.append(
                "Always giving the most frequent class may do as well: the accuracy is "
                f"{with_ends(constant, 100, 1, ' points')} above that."
            )
        return messages


def _class_flip(balanced: Mapping[str, Any], mcc: Mapping[str, Any]) -> list[str]:
    """Warn if the accuracy rose but balanced accuracy or MCC did not, by intervals of their paired changes."""
    changes = f"balanced accuracy changed by {with_ends(balanced)}, MCC by {with_ends(mcc)}"
    if balanced["low"] > 0 and mcc["low"] > 0:
        return []
    if balanced["high"] <= 0 or mcc["high"] <= 0:
        return [f"This is a class flip: the accuracy rose, but {changes}. Another favourite answer would have done it."]
    return [f"This may be a class flip, which another favourite answer would do too: the accuracy rose, and {changes}."]
