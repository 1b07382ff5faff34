"""Directions and doses, crossed: all shifts of a state that the design compares, as rows of one table.

A family is a probe, a direction and a dose at ten strengths. *Adaptive*: ``h' = h - e v / (w.v)`` where the predicted
logit error exceeds logit(alpha) by ``e > 0``; afterwards it is logit(alpha), along any direction v. *Constant*:
``h' = h - m |D| v / |v|`` in every row, D the difference of the means of wrong and right rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.probes.error_probe import logit_error
from lightning_steer.studies.mera.crossed.probes import Probe
from lightning_steer.studies.mera.settings import MULTIPLES, THRESHOLDS

Answer = Callable[[Tensor], Tensor]
"""Logits of the labels ``[..., labels]`` from states ``[..., d]``."""
DIRECTIONS = ("w", "Sigma w", "Cov(h, logit error)", "mean difference", "causal gradient")
DOSES = ("adaptive", "constant")
RANDOM = 20
AT_ONCE = 40_000
"""Number of steered rows that are answered together."""


class Family(NamedTuple):
    """One kind of shift at ten strengths, from the weakest to the strongest."""

    probe: str
    """``kind penalty``; ``-`` for a constant dose along a direction that needs no probe."""
    r2: float
    direction: str
    dose: str
    weight: Tensor
    """``[d]`` weight of the probe; 0 for a constant dose."""
    offsets: Tensor
    """``[10]`` offsets: a row moves by relu(w.h + offset)."""
    along: Tensor
    """``[d]`` what is subtracted for an amount of 1."""


def gradient(answer: Answer, h: Tensor, y: Tensor) -> Tensor:
    """Return the gradient ``[d]`` of the rows' mean logit error with respect to their states."""
    h = h.float().clone().requires_grad_()
    with torch.enable_grad():
        p = answer(h).double().softmax(-1)[torch.arange(len(y)), y].clamp(1e-6, 1 - 1e-6)
        (-p.logit().mean()).backward()
    return h.grad.double().mean(0) * len(y)  # type: ignore[union-attr]


def families(answer: Answer, h: Tensor, y: Tensor, error: Tensor, probes: list[Probe], seed: int) -> list[Family]:
    """Fit the crossed design to training rows ``h [n, d]`` with labels and errors ``[n]``."""
    x = h.double() - h.double().mean(0)
    target = logit_error(error)
    wrong = error >= 0.5
    difference = h[wrong].double().mean(0) - h[~wrong].double().mean(0)
    free_directions = {
        "Cov(h, logit error)": x.T @ (target - target.mean()) / len(x),
        "mean difference": difference,
        "causal gradient": gradient(answer, h, y),
    }
    crossed = list[Family]()
    for probe in probes:
        probe_directions = {"w": probe.weight, "Sigma w": x.T @ (x @ probe.weight) / len(x)}
        for name, v in (probe_directions | free_directions).items():
            crossed.append(_adaptive(probe, name, v))
        crossed += [
            _constant(f"{probe.kind} {probe.penalty:g}", probe.r2, n, v, difference)
            for n, v in probe_directions.items()
        ]
    crossed += [_constant("-", float("nan"), name, v, difference) for name, v in free_directions.items()]
    generator = torch.Generator().manual_seed(seed)
    for k in range(RANDOM):
        v = torch.randn(h.shape[1], dtype=torch.float64, generator=generator)
        crossed.append(_constant("-", float("nan"), f"random {k}", v, difference))
    return crossed


def _adaptive(probe: Probe, name: str, v: Tensor) -> Family:
    lift = probe.weight @ v
    ineffective = lift.abs() <= 1e-9 * probe.weight.norm() * v.norm()  # along v the prediction cannot be lowered
    along = torch.zeros_like(v) if bool(ineffective) else v / lift
    offsets = probe.intercept - torch.tensor(THRESHOLDS, dtype=torch.float64).clamp(1e-6, 1 - 1e-6).logit()
    return Family(f"{probe.kind} {probe.penalty:g}", probe.r2, name, "adaptive", probe.weight, offsets, along)


def _constant(probe: str, r2: float, name: str, v: Tensor, difference: Tensor) -> Family:
    along = v * (difference.norm() / v.norm().clamp_min(1e-12))
    return Family(probe, r2, name, "constant", torch.zeros_like(v), torch.tensor(MULTIPLES).double(), along)


@torch.no_grad()
def answers(answer: Answer, h: Tensor, base: Tensor, of: list[Family], which: Tensor | None = None) -> Tensor:
    """Return the answered labels ``[F, S, n]``; rows that do not move keep their answers and are not run.

    Args:
        answer: computes logits from states.
        h: ``[n, d]`` states.
        base: ``[n]`` labels answered without steering.
        of: F families.
        which: ``[F, S]`` indices of the strengths; None for all.
    """
    offsets = torch.stack([f.offsets for f in of])
    offsets = offsets if which is None else offsets.gather(1, which)
    weight, along = torch.stack([f.weight for f in of]), torch.stack([f.along for f in of]).float()
    amount = ((h.double() @ weight.T).T.unsqueeze(1) + offsets.unsqueeze(-1)).clamp_min(0).float()  # [F, S, n]
    amount *= (along != 0).any(-1)[:, None, None]
    labels = base.expand(amount.shape).clone()
    for moved in amount.nonzero().split(AT_ONCE):
        f, s, i = moved.T
        steered = torch.addcmul(h[i], amount[f, s, i].unsqueeze(1), along[f], value=-1)
        labels[f, s, i] = answer(steered).argmax(-1)
    return labels
