"""Certifying candidates on the calibration rows, and judging one of them on the test rows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_steer.data.mera.tasks import Example
from lightning_steer.data.pocket.items import neutral_texts
from lightning_steer.lm.language_model import LLM
from lightning_steer.metrics.confusion import confusion
from lightning_steer.metrics.spi import estimates, flip
from lightning_steer.statistics.certificates import certify
from lightning_steer.studies.mera import settings, truth
from lightning_steer.studies.mera.families import Family

CURVES = ("MERA", "MERA, last layer", "Mahalanobis MERA", "Mahalanobis MERA, last layer")
"""Families whose every threshold is tested, for figures; nothing is chosen by it."""


class Split(NamedTuple):
    """Some prompts, ready to be decided."""

    examples: list[Example]
    y: Tensor
    decisions: Any
    """:class:`Decisions`, or what answers as they do."""

    @property
    def right(self) -> Tensor:
        """``[n]`` whether the unsteered model is."""
        return self.decisions.base.argmax(-1) == self.y


class Weighed:
    """Decisions of a model whose labels are weighed first, so that no label bias is left to explain anything.

    Args:
        decisions: of the model as it is.
        bias: ``[labels]``.
    """

    def __init__(self, decisions: Any, bias: Tensor) -> None:
        self.inner, self.bias, self.h, self.llm = decisions, bias, decisions.h, decisions.llm
        self.base = decisions.base + bias

    def scores(self, maps: Any, strengths: Sequence[float]) -> Tensor:
        """``[S, n, labels]``."""
        return self.inner.scores(maps, strengths) + self.bias


def judged(test: Split, logits: Tensor) -> dict[str, Any]:
    """Figures of test logits ``[n, options]`` beside the unsteered ones, and both confusion matrices."""
    k, rows = logits.shape[-1], torch.arange(len(test.y))
    answer, base = logits.argmax(-1), test.decisions.base.argmax(-1)
    after, before = (1 - x.double().softmax(-1)[rows, test.y] for x in (logits, test.decisions.base))
    found = estimates(test.y, base, answer, before, after, k)
    matrices = [confusion(test.y, a, k) for a in (base, answer)]
    return {
        "metrics": {name: one[0]._asdict() for name, one in found.items()},
        "flip": flip(*matrices),
        "confusion": matrices[1].int().tolist(),
        "confusion_base": matrices[0].int().tolist(),
        "labels_moved": float((answer != base).double().mean()),
    }


def certified(calibration: Split, logits: Tensor, strengths: Sequence[float]) -> dict[str, Any]:
    """What the calibration rows say of candidates ``[S, n, options]``."""
    right = logits.argmax(-1) == calibration.y
    changes = right.int() - calibration.right.int()
    found = certify(changes.numpy(), -1, 1, delta=settings.DELTA)
    best = int(found.estimate.argmax()) if found.chosen is None else found.chosen  # tested all the same
    return {
        "certified": found.chosen is not None,
        "strength": strengths[best],
        "number": best,
        "bound": found.bound or 0.0,
        "reason": found.reason,
        "curve": {"strength": list(strengths), "lower": found.lower.tolist(), "estimate": found.estimate.tolist()},
    }


def beyond(test: Split, logits: Tensor, bias: Tensor) -> dict[str, Any]:
    """Accuracy and balanced accuracy beyond what the fitted label bias reaches, paired over the test rows."""
    weighed, n, zero = (test.decisions.base + bias).argmax(-1), len(test.y), torch.zeros(len(test.y))
    found = estimates(test.y, weighed, logits.argmax(-1), zero, zero, logits.shape[-1])
    return {"n": n} | {name: found[f"{name}_change"][0]._asdict() for name in ("accuracy", "balanced_accuracy", "mcc")}


def method(
    llm: LLM,
    family: Family,
    calibration: Split,
    test: Split,
    others: list[Split],
    planted: truth.Planted,
) -> dict[str, Any]:
    """Certify a family, and test the candidate with the best bound, whether certified or not."""
    found = certified(calibration, family.scores(calibration.decisions), family.strengths)
    best = found["number"]
    whole = family.name in CURVES
    logits = family.scores(test.decisions, None if whole else [best])
    chosen = logits[best if whole else 0]
    found |= judged(test, chosen)
    maps, strength = family.at(best), family.strengths[best]
    found["layers"] = list(maps)
    found["edited"] = edited(test, maps, strength)
    found["repaired"] = planted.repaired(test, chosen)._asdict()
    if whole:
        changes = (logits.argmax(-1) == test.y).double().mean(1) - test.right.double().mean()
        found["curve"]["test"] = changes.tolist()
    if found["certified"]:
        found["drift"] = drift(llm, maps, strength, others)
    return found


def edited(test: Split, maps: Any, strength: float) -> float:
    """Share of test rows that any layer's map moves, judged on the unsteered stream."""
    moved = [(m(test.decisions.h[layer], strength) != test.decisions.h[layer]).any(-1) for layer, m in maps.items()]
    return float(torch.stack(moved).any(0).double().mean()) if moved else 0.0


def drift(llm: LLM, maps: Any, strength: float, others: list[Split]) -> dict[str, Any]:
    """What it does where nothing was asked of it: neutral texts, and the other tasks' answers."""
    texts = [document.text for document in neutral_texts(settings.NEUTRAL, chat=llm.chat)]
    if llm.chat:  # they bring their own marks
        texts = [text.partition("<user> ")[2].partition(" <end>")[0] for text in texts]
    edits = {llm.site(layer): (lambda h, m=m: m(h, strength)) for layer, m in maps.items()}
    kl = llm.drift(texts, edits).kl
    change, moved = [], []
    for other in others:
        answer = other.decisions.scores(maps, [strength])[0].argmax(-1)
        change.append(float((answer == other.y).double().mean() - other.right.double().mean()))
        moved.append(float((answer != other.decisions.base.argmax(-1)).double().mean()))
    return {"reference_kl": float(kl.nanmean()), "other_accuracy_change": change, "other_answers_moved": moved}
