"""One cell of the crossed design: every family certified on calibration rows and tested, with its controls."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_steer.metrics.spi import spi
from lightning_steer.studies.mera.controls import constant_class, contextual_bias, fitted_bias
from lightning_steer.studies.mera.crossed import certificate
from lightning_steer.studies.mera.crossed import probes as error_probes
from lightning_steer.studies.mera.crossed.shifts import Answer, Family, answers, families

DESIGN = 1
"""Version of the design: raise it when the same rows would give other figures, so that stored cells run again."""


class CellPart(NamedTuple):
    """Some rows of a world, with the states that are steered."""

    h: Tensor
    """``[n, d]``."""
    y: Tensor
    """``[n]``."""
    logits: Tensor
    """``[n, labels]`` of the labels, without steering."""

    @property
    def label(self) -> Tensor:
        """``[n]`` the label answered without steering."""
        return self.logits.argmax(-1)

    @property
    def right(self) -> Tensor:
        """``[n]`` whether that answer is right."""
        return self.label == self.y


class CellParts(NamedTuple):
    """Disjoint rows: probes are fitted to ``train``; penalties are chosen by gain on ``choice``."""

    train: CellPart
    choice: CellPart
    calibration: CellPart
    test: CellPart


def run(
    parts: CellParts, answer: Answer, seed: int, resample: bool, is_judged: Callable[[Family], bool] = lambda _: True
) -> dict[str, Any]:
    """Return ``{"families": [...], "controls": ..., ...}`` of one draw.

    Args:
        parts: the rows.
        answer: computes logits from states.
        seed: draws the random directions.
        resample: whether to resample calibrations from the test rows, for the certificate's power.
        is_judged: selects the families that are judged.
    """
    start = time.process_time()
    train, test = parts.train, parts.test
    p = train.logits.double().softmax(-1)
    error = 1 - p[torch.arange(len(p)), train.y]
    probes = error_probes.fit(train.h, error)
    all_families = families(answer, train.h, train.y, error, probes, seed)
    judged_families = [f for f in all_families if is_judged(f)]
    changes = {
        name: _changes(part, answer, judged_families)
        for name, part in (("choice", parts.choice), ("cal", parts.calibration))
    }
    best, certified = (torch.from_numpy(array) for array in certificate.chosen(changes["cal"].numpy()))
    labels = answers(answer, test.h, test.label, judged_families, best.unsqueeze(1))[:, 0]
    figures = judged(test, labels)
    gains = changes["choice"].double().mean(-1).amax(1)
    rows = [
        {
            "probe": f.probe,
            "r2": f.r2,
            "direction": f.direction,
            "dose": f.dose,
            "gain": float(gains[k]),
            "number": int(best[k]),
            "certified": bool(certified[k]),
            **{name: float(column[k]) for name, column in figures.items()},
        }
        for k, f in enumerate(judged_families)
    ]
    unsteered = judged(test, test.label.unsqueeze(0))
    result = {
        "rows": {name: len(part.y) for name, part in parts._asdict().items()},
        "base": {name: float(unsteered[name]) for name in ("accuracy", "balanced_accuracy", "mcc")},
        "families": rows,
        "controls": controls(parts),
        "cosines": cosines(all_families, probes),
    }
    if resample:
        result["certificate"] = certificate.of_cell(answer, test, judged_families, len(parts.calibration.y), seed)
    return result | {"core_seconds": time.process_time() - start}


def _changes(part: CellPart, answer: Answer, judged_families: list[Family]) -> Tensor:
    right = answers(answer, part.h, part.label, judged_families) == part.y
    return right.to(torch.int8) - part.right.to(torch.int8)


def judged(test: CellPart, labels: Tensor) -> Mapping[str, Tensor]:
    """Return accuracy, balanced accuracy, Matthews's coefficient and SPI ``[F]`` of answered labels ``[F, n]``."""
    k = test.logits.shape[-1]
    table = torch.nn.functional.one_hot(test.y * k + labels, k * k).sum(1).unflatten(-1, (k, k)).double()
    n, hit = table.sum((1, 2)), table.diagonal(dim1=1, dim2=2)
    labelled, answered = table.sum(2), table.sum(1)
    accuracy = hit.sum(1) / n
    recall = torch.where(labelled > 0, hit / labelled.clamp_min(1), torch.nan).nanmean(1)
    top = hit.sum(1) * n - (labelled * answered).sum(1)
    bottom = ((n**2 - labelled.square().sum(1)) * (n**2 - answered.square().sum(1))).sqrt()
    mcc = torch.where(bottom > 0, top / bottom.clamp_min(1e-9), 0.0)
    base = test.right.double().mean().expand_as(accuracy)
    return {"accuracy": accuracy, "balanced_accuracy": recall, "mcc": mcc, "spi": spi(base, accuracy)}


def controls(parts: CellParts) -> dict[str, dict[str, float]]:
    """Return the controls that need no steering, each certified as a single candidate."""
    train, calibration, test = parts.train, parts.calibration, parts.test
    biases = {"label bias, fitted": fitted_bias(train.logits, train.y)}
    biases["label bias, contextual"] = contextual_bias(train.logits)
    constant = 1e4 * torch.nn.functional.one_hot(constant_class(train.y, test.logits)[0], test.logits.shape[-1])
    by_control = {}
    for name, bias in (biases | {"constant class": constant}).items():
        right = (calibration.logits.double() + bias).argmax(-1) == calibration.y
        change = right.to(torch.int8) - calibration.right.to(torch.int8)
        figures = judged(test, (test.logits.double() + bias).argmax(-1).unsqueeze(0))
        certified = certificate.chosen(change[None, None].numpy())[1]
        by_control[name] = {"certified": bool(certified[0])} | {key: float(value) for key, value in figures.items()}
    return by_control


def cosines(of: list[Family], probes: list[error_probes.Probe]) -> dict[str, float]:
    """Return the absolute cosines of each probe's w and Sigma w with the covariance direction."""
    along = {(f.probe, f.direction): f.along for f in of if f.dose == "adaptive"}
    values = {}
    for probe in probes:
        name = f"{probe.kind} {probe.penalty:g}"
        covariance = along[name, "Cov(h, logit error)"]
        for direction in ("w", "Sigma w"):
            values[f"{name}, {direction}"] = float(
                torch.cosine_similarity(along[name, direction], covariance, dim=0).abs()
            )
    return values
