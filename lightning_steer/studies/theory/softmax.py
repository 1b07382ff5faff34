"""What else changes when the margin of two tokens rises by a given amount: exact, on a softmax of linear logits.

Logits are ``G h`` with one row of G a token. The margin of tokens a and b is ``g.h`` with ``g = G_a - G_b``. Every
form shifts the head's input h by a multiple of its direction until the margin has risen by the effect.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.methods import DualSteering, MidSteer
from lightning_steer.methods.dual_steering import shrunk
from lightning_steer.networks.gradients import weighted_gradients
from lightning_steer.records import Activations
from lightning_steer.studies.theory.directions import Directions

EFFECTS = (1.0, 2.0, 4.0)
"""Rises of the margin, in nats."""
OUTCOMES = 16
"""Likeliest tokens that the Fisher information counts, as in dual steering."""
SHRINKAGE = 0.1
"""Of the Fisher information, the default of dual steering."""
RANDOM = 20


class MarginChange(NamedTuple):
    """What a shift changes in n contexts."""

    full: Tensor
    """``[n]`` KL of the steered from the unsteered distribution, in nats."""
    other: Tensor
    """``[n]`` the same among all tokens but the two."""


def change(head: Tensor, h: Tensor, shift: Tensor, pair: Tensor) -> MarginChange:
    """Return what ``shift [n, d]`` or ``[d]`` changes at ``h [n, d]`` under the head ``[V, d]``."""
    before, after = h @ head.T, (h + shift) @ head.T
    values = []
    for masked in (False, True):
        if masked:
            before[:, pair] = after[:, pair] = -1e30
        p, q = before.log_softmax(-1), after.log_softmax(-1)
        values.append((p.exp() * (p - q)).sum(-1))
    return MarginChange(*values)


def optimum(head: Tensor, h: Tensor, g: Tensor, effect: float, steps: int = 100) -> Tensor:
    """Return the shift ``[n, d]`` of least full KL in each context among all with ``g.shift = effect``.

    Newton's method with backtracking on a convex problem. At the optimum the mean of the head's rows under the softmax
    has moved along g, which is dual steering in the limit of small steps (Park et al. 2026).
    """
    mean0, log0 = (h @ head.T).softmax(-1) @ head, (h @ head.T).logsumexp(-1)

    def cost(shift: Tensor) -> Tensor:
        return ((h + shift) @ head.T).logsumexp(-1) - log0 - (shift * mean0).sum(-1)

    shift = (effect * g / g.square().sum()).expand_as(h).clone()
    for _ in range(steps):
        p = ((h + shift) @ head.T).softmax(-1)
        mean = p @ head
        weighted = p.sqrt().unsqueeze(-1) * (head - mean.unsqueeze(-2))
        fisher = shrunk(weighted.mT @ weighted, 1e-7)
        newton, flat = torch.linalg.solve(fisher, torch.stack([mean0 - mean, g.expand_as(h)], -1)).unbind(-1)
        step = newton - flat * ((newton @ g) / (flat @ g)).unsqueeze(-1)  # keeps the effect
        slope, now, size = ((mean - mean0) * step).sum(-1), cost(shift), torch.ones(len(h)).to(h)
        if (-slope).max() < 1e-8 * min(1.0, effect**2):
            break
        for _ in range(30):
            size = torch.where(cost(shift + size.unsqueeze(-1) * step) > now + 0.1 * size * slope, size / 2, size)
        shift = shift + size.unsqueeze(-1) * step
    return shift


def sensitivity(head: Tensor, h: Tensor) -> Tensor:
    """Return ``[n, m, d]`` root probability times gradient of the log of the m likeliest tokens, for dual steering."""
    moved = h.clone().requires_grad_()
    return weighted_gradients((moved @ head.T).topk(OUTCOMES).values.log_softmax(-1), [moved])[0]


def forms(head: Tensor, h: Tensor, y: Tensor, pair: Tensor, fitted: Directions, seed: int) -> dict[str, Tensor]:
    """Return the direction ``[d]`` of each form that shifts all contexts alike, from fitted rows ``h [n, d]``."""
    g, seen = head[pair[0]] - head[pair[1]], sensitivity(head, h)
    rows = Activations(h, (y <= 0).double(), torch.zeros(len(h), 1, dtype=torch.int64), False, sensitivity=seen)
    flat = seen.flatten(0, 1)
    random = torch.randn(RANDOM, len(g), generator=torch.Generator().manual_seed(seed)).to(g)
    return {
        "g (Euclid)": g,
        "Sigma g (Mahalanobis)": fitted.sigma @ g,
        "F^-1 g (dual)": torch.linalg.solve(shrunk(flat.T @ flat / len(h), SHRINKAGE), g),
        **{name: v for name, v in fitted.named().items() if name != "w, penalty by R2"},
        "dual_steering.yaml": DualSteering(len(g), SHRINKAGE).fit(rows).shift(h, 1.0)[0].to(g),
        **{f"random {k}": v for k, v in enumerate(random)},
    }


def compare(
    head: Tensor, h: Tensor, y: Tensor, test: Tensor, pair: Tensor, fitted: Directions, seed: int
) -> dict[str, list[list[float]]]:
    """Return ``{form: [[full, other] for each effect]}``, means over contexts ``test [m, d]``.

    MidSteer moves each context by an amount of its own, so its effect is that of the contexts' mean.
    """
    g = head[pair[0]] - head[pair[1]]
    rows = Activations(h, (y <= 0).double(), torch.zeros(len(h), 1, dtype=torch.int64), False)
    own = MidSteer(len(g)).fit(rows).double().shift(test, 1.0).to(g)
    shifts = forms(head, h, y, pair, fitted, seed) | {"midsteer.yaml": own}
    result: dict[str, list[list[float]]] = {}
    for effect in EFFECTS:
        scaled = {name: effect * v / (v @ g).mean() for name, v in shifts.items()}
        scaled["optimum of each context"] = optimum(head, test, g, effect)
        for name, v in scaled.items():
            result.setdefault(name, []).append([float(x.mean()) for x in change(head, test, v, pair)])
    return result
