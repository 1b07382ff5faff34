"""Sampling that does not depend on the batch: each response has its own random generator.

A token is drawn by adding Gumbel noise to the log-probabilities and taking the largest, which draws it with exactly
those probabilities. A response's noise depends only on the seed and the response's name, so it is the
same in any batch, alone, and in a resumed run.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


class Sampler:
    """A logits processor for ``generate``, which then takes the largest logit as in greedy decoding.

    Args:
        names: names of the responses, one for each row.
        seed: with the name, seeds a response's noise.
        temperature: divides the logits; above 0.
        top_p: tokens are drawn from the likeliest ones that together reach this probability.
    """

    def __init__(self, names: Sequence[str], seed: int, temperature: float, top_p: float = 1.0) -> None:
        self.temperature, self.top_p = temperature, top_p
        self.sources = [torch.Generator().manual_seed(_number(f"{seed}/{name}")) for name in names]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Perturb logits ``[B, V]``."""
        logp = (scores.float() / self.temperature).log_softmax(-1)
        if self.top_p < 1:
            ordered, order = logp.sort(-1, descending=True)
            before = ordered.exp().cumsum(-1) - ordered.exp()  # the likeliest always stays
            logp = torch.full_like(logp, -torch.inf).scatter(
                1, order, ordered.masked_fill(before >= self.top_p, -torch.inf)
            )
        uniform = torch.stack([torch.rand(logp.shape[1], generator=source) for source in self.sources])
        return logp - (-uniform.clamp_min(1e-20).log()).log().to(logp.device)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
