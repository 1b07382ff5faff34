"""Certify candidates on the calibration rows, and judge one of them on the test rows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_steer.data.mera.tasks import LabelledExample
from lightning_steer.data.pocket.items import neutral_texts
from lightning_steer.lm.language_model import LLM
from lightning_steer.metrics.confusion import confusion
from lightning_steer.metrics.spi import estimates, flip
from lightning_steer.statistics.certificates import certify
from lightning_steer.studies.mera import settings
from lightning_steer.studies.mera.families import MethodFamily
from lightning_steer.studies.mera.ground_truth import GroundTruth

CURVES = ("MERA", "MERA, last layer", "Mahalanobis MERA", "Mahalanobis MERA, last layer")
"""Families whose thresholds are all tested, for figures only; no choice depends on it."""


class AnsweredSplit(NamedTuple):
    """Prompts with their labels and decisions."""

    examples: list[LabelledExample]
    y: Tensor
    decisions: Any
    """:class:`Decisions`, or an object with the same methods."""

    @property
    def right(self) -> Tensor:
        """``[n]`` whether the unsteered model is right."""
        return self.decisions.base.argmax(-1) == self.y


class Weighed:
    """Decisions of a model with biased labels, so that a label bias cannot explain what steering changes.

    Args:
        decisions: of the baseline.
        bias: ``[labels]``.
    """

    def __init__(self, decisions: Any, bias: Tensor) -> None:
        self.inner, self.bias, self.h, self.llm = decisions, bias, decisions.h, decisions.llm
        self.base = decisions.base + bias

    def scores(self, maps: Any, strengths: Sequence[float]) -> Tensor:
        """Return biased logits ``[S, n, labels]``."""
        return self.inner.scores(maps, strengths) + self.bias


def judged(test: AnsweredSplit, logits: Tensor) -> dict[str, Any]:
    """Return the figures of test logits ``[n, options]`` and of the baseline, with both confusion matrices."""
    k, rows = logits.shape[-1], torch.arange(len(test.y))
    answer, base = logits.argmax(-1), test.decisions.base.argmax(-1)
    after, before = (1 - x.double().softmax(-1)[rows, test.y] for x in (logits, test.decisions.base))
    estimated = estimates(test.y, base, answer, before, after, k)
    matrices = [confusion(test.y, a, k) for a in (base, answer)]
    return {
        "metrics": {name: values[0]._asdict() for name, values in estimated.items()},
        "flip": flip(*matrices),
        "confusion": matrices[1].int().tolist(),
        "confusion_base": matrices[0].int().tolist(),
        "labels_moved": float((answer != base).double().mean()),
    }


def certified(calibration: AnsweredSplit, logits: Tensor, strengths: Sequence[float]) -> dict[str, Any]:
    """Certify candidates ``[S, n, options]`` on the calibration rows."""
    right = logits.argmax(-1) == calibration.y
    changes = right.int() - calibration.right.int()
    certificate = certify(changes.numpy(), -1, 1, delta=settings.DELTA)
    # a candidate is tested even if none is certified
    best = int(certificate.estimate.argmax()) if certificate.chosen is None else certificate.chosen
    return {
        "certified": certificate.chosen is not None,
        "strength": strengths[best],
        "number": best,
        "bound": certificate.bound or 0.0,
        "reason": certificate.reason,
        "curve": {
            "strength": list(strengths),
            "lower": certificate.lower.tolist(),
            "estimate": certificate.estimate.tolist(),
        },
    }


def beyond(test: AnsweredSplit, logits: Tensor, bias: Tensor) -> dict[str, Any]:
    """Return the gain in accuracy, balanced accuracy and MCC over the fitted label bias, paired over the test rows."""
    biased_answer, n, zero = (test.decisions.base + bias).argmax(-1), len(test.y), torch.zeros(len(test.y))
    estimated = estimates(test.y, biased_answer, logits.argmax(-1), zero, zero, logits.shape[-1])
    return {"n": n} | {
        name: estimated[f"{name}_change"][0]._asdict() for name in ("accuracy", "balanced_accuracy", "mcc")
    }


def method(
    llm: LLM,
    family: MethodFamily,
    calibration: AnsweredSplit,
    test: AnsweredSplit,
    others: list[AnsweredSplit],
    known: GroundTruth,
) -> dict[str, Any]:
    """Certify a family, and test the candidate with the best bound, whether certified or not."""
    result = certified(calibration, family.scores(calibration.decisions), family.strengths)
    best = result["number"]
    is_curve = family.name in CURVES
    logits = family.scores(test.decisions, None if is_curve else [best])
    chosen = logits[best if is_curve else 0]
    result |= judged(test, chosen)
    maps, strength = family.at(best), family.strengths[best]
    result["layers"] = list(maps)
    result["edited"] = intervention_rate(test, maps, strength)
    result["repaired"] = known.repaired(test, chosen)._asdict()
    if is_curve:
        changes = (logits.argmax(-1) == test.y).double().mean(1) - test.right.double().mean()
        result["curve"]["test"] = changes.tolist()
    if result["certified"]:
        result["drift"] = drift(llm, maps, strength, others)
    return result


def intervention_rate(test: AnsweredSplit, maps: Any, strength: float) -> float:
    """Return the share of test rows that any layer's map moves, judged on unsteered activations."""
    moved = [(m(test.decisions.h[layer], strength) != test.decisions.h[layer]).any(-1) for layer, m in maps.items()]
    return float(torch.stack(moved).any(0).double().mean()) if moved else 0.0


def drift(llm: LLM, maps: Any, strength: float, others: list[AnsweredSplit]) -> dict[str, Any]:
    """Measure side effects: on neutral texts, and on the other tasks' answers."""
    texts = [document.text for document in neutral_texts(settings.NEUTRAL, chat=llm.chat)]
    if llm.chat:  # the texts contain chat marks already
        texts = [text.partition("<user> ")[2].partition(" <end>")[0] for text in texts]
    edits = {llm.site(layer): (lambda h, m=m: m(h, strength)) for layer, m in maps.items()}
    kl = llm.drift(texts, edits).kl
    change, moved = [], []
    for other in others:
        answer = other.decisions.scores(maps, [strength])[0].argmax(-1)
        change.append(float((answer == other.y).double().mean() - other.right.double().mean()))
        moved.append(float((answer != other.decisions.base.argmax(-1)).double().mean()))
    return {"reference_kl": float(kl.nanmean()), "other_accuracy_change": change, "other_answers_moved": moved}
