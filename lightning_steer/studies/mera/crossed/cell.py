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
"""Goes up whenever the same rows would give other figures: stored cells are made anew then."""


class Part(NamedTuple):
    """Some rows of a world, with the states that are steered."""

    h: Tensor
    """``[n, d]``."""
    y: Tensor
    """``[n]``."""
    logits: Tensor
    """``[n, labels]`` of the labels, without steering."""

    @property
    def label(self) -> Tensor:
        """``[n]`` answered without steering."""
        return self.logits.argmax(-1)

    @property
    def right(self) -> Tensor:
        """``[n]`` bool."""
        return self.label == self.y


class Parts(NamedTuple):
    """Disjoint rows: probes are fitted to ``train``, penalties chosen by gain on ``choice``."""

    train: Part
    choice: Part
    calibration: Part
    test: Part


def run(
    parts: Parts, answer: Answer, seed: int, resample: bool, is_judged: Callable[[Family], bool] = lambda _: True
) -> dict[str, Any]:
    """Return ``{"families": [...], "controls": ..., ...}`` of one draw.

    Args:
        parts: the rows.
        answer: from states on.
        seed: draws the random directions.
        resample: also resample calibrations from the test rows, for the certificate's power.
        is_judged: tells the families that are judged.
    """
    began = time.process_time()
    train, test = parts.train, parts.test
    p = train.logits.double().softmax(-1)
    error = 1 - p[torch.arange(len(p)), train.y]
    probes = error_probes.fit(train.h, error)
    every = families(answer, train.h, train.y, error, probes, seed)
    of = [f for f in every if is_judged(f)]
    changes = {
        name: _changes(part, answer, of) for name, part in (("choice", parts.choice), ("cal", parts.calibration))
    }
    best, certified = (torch.from_numpy(one) for one in certificate.chosen(changes["cal"].numpy()))
    labels = answers(answer, test.h, test.label, of, best.unsqueeze(1))[:, 0]
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
        for k, f in enumerate(of)
    ]
    bare = judged(test, test.label.unsqueeze(0))
    found = {
        "rows": {name: len(part.y) for name, part in parts._asdict().items()},
        "base": {name: float(bare[name]) for name in ("accuracy", "balanced_accuracy", "mcc")},
        "families": rows,
        "controls": controls(parts),
        "cosines": cosines(every, probes),
    }
    if resample:
        found["certificate"] = certificate.of_cell(answer, test, of, len(parts.calibration.y), seed)
    return found | {"core_seconds": time.process_time() - began}


def _changes(part: Part, answer: Answer, of: list[Family]) -> Tensor:
    right = answers(answer, part.h, part.label, of) == part.y
    return right.to(torch.int8) - part.right.to(torch.int8)


def judged(test: Part, labels: Tensor) -> Mapping[str, Tensor]:
    """Return accuracy, balanced accuracy, Matthews's coefficient and SPI ``[F]`` of labels answered ``[F, n]``."""
    k = test.logits.shape[-1]
    table = torch.nn.functional.one_hot(test.y * k + labels, k * k).sum(1).unflatten(-1, (k, k)).double()
    n, hit = table.sum((1, 2)), table.diagonal(dim1=1, dim2=2)
    truth, told = table.sum(2), table.sum(1)
    accuracy = hit.sum(1) / n
    recall = torch.where(truth > 0, hit / truth.clamp_min(1), torch.nan).nanmean(1)
    top = hit.sum(1) * n - (truth * told).sum(1)
    bottom = ((n**2 - truth.square().sum(1)) * (n**2 - told.square().sum(1))).sqrt()
    mcc = torch.where(bottom > 0, top / bottom.clamp_min(1e-9), 0.0)
    base = test.right.double().mean().expand_as(accuracy)
    return {"accuracy": accuracy, "balanced_accuracy": recall, "mcc": mcc, "spi": spi(base, accuracy)}


def controls(parts: Parts) -> dict[str, dict[str, float]]:
    """Return what needs no steering, each certified as a single candidate like any other."""
    train, calibration, test = parts.train, parts.calibration, parts.test
    biases = {"label bias, fitted": fitted_bias(train.logits, train.y)}
    biases["label bias, contextual"] = contextual_bias(train.logits)
    constant = 1e4 * torch.nn.functional.one_hot(constant_class(train.y, test.logits)[0], test.logits.shape[-1])
    found = {}
    for name, bias in (biases | {"constant class": constant}).items():
        right = (calibration.logits.double() + bias).argmax(-1) == calibration.y
        change = right.to(torch.int8) - calibration.right.to(torch.int8)
        figures = judged(test, (test.logits.double() + bias).argmax(-1).unsqueeze(0))
        certified = certificate.chosen(change[None, None].numpy())[1]
        found[name] = {"certified": bool(certified[0])} | {key: float(value) for key, value in figures.items()}
    return found


def cosines(of: list[Family], probes: list[error_probes.Probe]) -> dict[str, float]:
    """Return how near w and Sigma w of each probe are to the covariance direction."""
    by = {(f.probe, f.direction): f.along for f in of if f.dose == "adaptive"}
    found = {}
    for probe in probes:
        name = f"{probe.kind} {probe.penalty:g}"
        aim = by[name, "Cov(h, logit error)"]
        for direction in ("w", "Sigma w"):
            found[f"{name}, {direction}"] = float(torch.cosine_similarity(by[name, direction], aim, dim=0).abs())
    return found
