"""Gradients of the outcomes of a network by shifts inside it."""

from collections.abc import Sequence

import torch
from torch import Tensor


def weighted_gradients(logp: Tensor, shifts: Sequence[Tensor]) -> list[Tensor]:
    """Return, for each shift, ``[B, m, d]``: root probability of each outcome times the gradient of its log.

    Args:
        logp: ``[B, m]`` log-probabilities of outcomes, each row depending on its own rows of the shifts only.
        shifts: ``[B, d]`` leaves of the graph.
    """
    weight = (logp.detach() / 2).exp()
    outcomes = [torch.autograd.grad(logp[:, i].sum(), shifts, retain_graph=True) for i in range(logp.shape[1])]
    return [
        torch.stack(gradients, 1) * weight.unsqueeze(-1).to(gradients[0]) for gradients in zip(*outcomes, strict=True)
    ]
