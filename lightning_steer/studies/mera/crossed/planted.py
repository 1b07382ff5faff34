"""Positive controls: worlds without training in which a pattern holds by construction and must be detected.

States are ``h = Q z`` with a random rotation Q of 96 latent numbers: z_0 pulls the answer, z_1 repeats it exactly
but has no effect, z_2 to z_4 are evidence for three labels. Answers are ``3 z_2..4``, with 6 more for a label where
z_0 passes a limit. The pull label is right in a tenth of the rows.

- *w repairs*: all of z is Gaussian with variance 1, so any probe's w equals its Sigma w; z_0 pulls linearly.
- *filter*: z_0 is a noisy cue that pulls as a step; z_1 repeats the cue without noise, fifty times smaller. Least
  squares reads z_1, which has no effect; Sigma w and strong ridge penalties lead to z_0.
- *dose*: like the filter, with a cue in a fifth of the rows and a second step below. A push that undoes the first step
  moves all other rows into the second.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.metrics.spi import spi
from lightning_steer.studies.mera.crossed import certificate, probes
from lightning_steer.studies.mera.crossed.cell import CellPart, CellParts
from lightning_steer.studies.mera.crossed.shifts import Answer, Family, answers, families

KINDS = ("w repairs", "filter", "dose")
WIDTH, TRAIN, CALIBRATION, TEST, PULL, EVIDENCE = 96, 3000, 250, 1000, 6.0, 1.0


def world(kind: str, seed: int) -> tuple[CellParts, Answer]:
    """Return the rows of one repeat and the function that answers them; raise ValueError on an unknown kind."""
    if kind not in KINDS:
        raise ValueError(f"positive controls are {', '.join(KINDS)}, not {kind!r}")
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0]

    def answer(h: Tensor) -> Tensor:
        z = h.float() @ rotation
        logits = 3 * z[..., 2:5]
        if kind == "w repairs":
            return logits + torch.stack([PULL / 2 * z[..., 0], *[torch.zeros_like(z[..., 0])] * 2], -1)
        up = PULL * torch.sigmoid(20 * (z[..., 0] - 0.8))
        down = PULL * torch.sigmoid(-20 * (z[..., 0] + 0.8)) if kind == "dose" else torch.zeros_like(up)
        return logits + torch.stack([up, down, torch.zeros_like(up)], -1)

    def part(n: int) -> CellPart:
        y = torch.where(torch.rand(n, generator=generator) < 0.1, 0, torch.randint(1, 3, (n,), generator=generator))
        z = torch.randn(n, WIDTH, generator=generator)
        if kind != "w repairs":
            cue = (torch.rand(n, generator=generator) < (0.2 if kind == "dose" else 0.5)).float()
            z[:, 5:] *= 0.1
            z[:, 0] = 2 * cue - (kind == "filter") * 0.5 + 0.25 * z[:, 0]
            z[:, 1] = 0.04 * cue + 0.002 * z[:, 1]
        z[:, 2:5] = z[:, 2:5] / 4 + EVIDENCE * torch.nn.functional.one_hot(y, 3)
        h = z @ rotation.T
        return CellPart(h, y, answer(h))

    return CellParts(part(TRAIN), part(CALIBRATION), part(CALIBRATION), part(TEST)), answer


class Repeat(NamedTuple):
    """Deployed SPI of one repeat, for the families that the declared contrasts compare."""

    w: float
    """Least squares or lasso chosen by R2, along w, adaptive."""
    ridge: float
    """Ridge 100, along w, adaptive."""
    sigma: float
    """The probe chosen by R2, along Sigma w, adaptive."""
    constant: float
    """The same direction, constant dose."""


def repeat(kind: str, seed: int) -> Repeat:
    """Run one repeat of a positive control, judged like every cell."""
    parts, answer = world(kind, seed)
    train, cal, test = parts.train, parts.calibration, parts.test
    error = 1 - train.logits.double().softmax(-1)[torch.arange(len(train.y)), train.y]
    linear_probes = [p for p in probes.fit(train.h, error) if p.kind != "logistic"]
    best, ridge = probes.best(linear_probes, "lasso"), probes.best(linear_probes, "ridge", 100.0)
    all_families = families(answer, train.h, train.y, error, [best, ridge], seed)

    def named(probe: probes.Probe, direction: str, dose: str) -> Family:
        name = f"{probe.kind} {probe.penalty:g}"
        return next(f for f in all_families if (f.probe, f.direction, f.dose) == (name, direction, dose))

    compared = [named(best, "w", "adaptive"), named(ridge, "w", "adaptive")]
    compared += [named(best, "Sigma w", dose) for dose in ("adaptive", "constant")]
    change = (answers(answer, cal.h, cal.label, compared) == cal.y).to(torch.int8) - cal.right.to(torch.int8)
    number, certified = (torch.from_numpy(array) for array in certificate.chosen(change.numpy()))
    right = answers(answer, test.h, test.label, compared, number.unsqueeze(1))[:, 0] == test.y
    accuracy = right.double().mean(1)
    deployed = torch.where(certified, spi(test.right.double().mean().expand(4), accuracy), 0.0)
    return Repeat(*deployed.tolist())
