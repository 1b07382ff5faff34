"""Sampling that does not depend on the batch: each response has a source of randomness of its own.

A token is drawn by adding Gumbel noise to its log-probabilities and taking the largest, which draws it with just those
probabilities. The noise of a response follows from the seed and the response's name alone, so that it comes out the
same in any batch, alone, and in a run that was resumed.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


class Sampler:
    """What ``generate`` is given as a logits processor; it then takes the largest, as in greedy decoding.

    Args:
        names: of the responses, one for each row.
        seed: with the name, begins a response's noise.
        temperature: divides the logits; above 0.
        top_p: only the likeliest tokens that reach this probability together are drawn from.
    """

    def __init__(self, names: Sequence[str], seed: int, temperature: float, top_p: float = 1.0) -> None:
        self.temperature, self.top_p = temperature, top_p
        self.sources = [torch.Generator().manual_seed(_number(f"{seed}/{name}")) for name in names]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``[B, V]`` logits in, perturbed ones out."""
        logp = (scores.float() / self.temperature).log_softmax(-1)
        if self.top_p < 1:
            ordered, order = logp.sort(-1, descending=True)
            before = ordered.exp().cumsum(-1) - ordered.exp()  # the likeliest is always kept
            logp = torch.full_like(logp, -torch.inf).scatter(
                1, order, ordered.masked_fill(before >= self.top_p, -torch.inf)
            )
        uniform = torch.stack([torch.rand(logp.shape[1], generator=source) for source in self.sources])
        return logp - (-uniform.clamp_min(1e-20).log()).log().to(logp.device)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
