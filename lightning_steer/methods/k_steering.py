"""K-Steering: follow the gradient of a small nonlinear classifier of the classes.

``L(h) = (mean z of negatives - mean z of positives) . logits(h)``, z the labels, logits of a network with one hidden
layer, ``W2' relu(W1' (h - mean) / scale + b1) + b2``; each of j steps is ``h' = h - strength/j * unit * grad L(h)``,
with the unit that makes the mean logits of negative rows those of positive ones at strength 1, to first order.
Source: Oozeer et al. 2025, arXiv 2505.24535: there two hidden layers and a free step size. The unit is ours.
"""

import math

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.records import Activations


class KSteering(SteeringMethod):
    """Follow a classifier's gradient. Strength: multiples of the step that closes the gap of the classes' mean logits.

    Args:
        hidden: units of the classifier's hidden layer.
        steps: gradient steps that share the strength; each looks at the row where the last one left it.
        by_value: classify by all values of all attributes, not only positives from negatives.
        seed: draws another start of the classifier.
    """

    def __init__(self, width: int, hidden: int = 64, steps: int = 1, by_value: bool = False, seed: int = 0) -> None:
        super().__init__(width)
        if hidden < 1 or steps < 1:
            raise UserError(f"hidden and steps are at least 1, not {hidden} and {steps}")
        self.hidden, self.steps, self.by_value, self.seed = hidden, steps, by_value, seed
        self.register_buffer("weight", torch.zeros(width, hidden))
        self.register_buffer("bias", torch.zeros(hidden))
        self.register_buffer("loss", torch.zeros(hidden))  # the loss is relu(h @ weight + bias) @ loss

    def estimate(self, seen: Activations) -> None:
        mean = seen.h.mean(-2, keepdim=True)
        scale = (seen.h - mean).square().mean((-2, -1), keepdim=True).sqrt().clamp_min(1e-12)
        z = seen.concept(self.by_value)
        w1, b1, w2 = self._train((seen.h - mean) / scale, z)
        self.weight, self.bias = w1 / scale, (b1 - mean / scale @ w1).squeeze(-2)
        aim = z[..., seen.error >= 0.5, :].mean(-2) - z[..., seen.error < 0.5, :].mean(-2)
        self.loss = (w2 @ aim.unsqueeze(-1)).squeeze(-1)
        high, low = (self._loss(h).mean(-1) for h in (seen.negative, seen.positive))
        steepness = self._gradient(seen.negative).square().sum(-1).mean(-1)
        self.loss = self.loss * ((high - low).clamp_min(0) / steepness.clamp_min(1e-30)).unsqueeze(-1)

    def _train(self, x: Tensor, z: Tensor, iterations: int = 200, rate: float = 0.01) -> list[Tensor]:
        """Return ``W1 [*, d, u]``, ``b1 [*, 1, u]`` and ``W2 [*, u, k]`` after AdamW on all rows.

        The gradients are written out, so that a method can also be fitted in inference mode.
        """
        start = torch.randn(self.width, self.hidden, generator=torch.Generator().manual_seed(self.seed))
        w1 = (start * math.sqrt(2 / self.width)).to(x).expand(*x.shape[:-2], -1, -1)
        weights = [w1, x.new_zeros(*w1.shape[:-2], 1, self.hidden)]
        weights += [x.new_zeros(*w1.shape[:-2], self.hidden, z.shape[-1]), z.new_zeros(*w1.shape[:-2], 1, z.shape[-1])]
        first, second = ([torch.zeros_like(w) for w in weights] for _ in range(2))
        for t in range(1, iterations + 1):
            w1, b1, w2, b2 = weights
            units = (x @ w1 + b1).relu()
            wrong = ((units @ w2 + b2).sigmoid() - z) / x.shape[-2]  # of the mean cross-entropy
            back = (wrong @ w2.mT) * (units > 0)
            gradients = [x.mT @ back, back.sum(-2, keepdim=True), units.mT @ wrong, wrong.sum(-2, keepdim=True)]
            for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
                first[i], second[i] = first[i].lerp(g, 0.1), second[i].lerp(g.square(), 0.001)
                size = (second[i] / (1 - 0.999**t)).sqrt() + 1e-8
                weights[i] = w * (1 - 0.01 * rate) - rate * first[i] / (1 - 0.9**t) / size
        return weights[:3]

    def _loss(self, h: Tensor) -> Tensor:
        return ((h @ self.weight + self.bias.unsqueeze(-2)).relu() @ self.loss.unsqueeze(-1)).squeeze(-1)

    def _gradient(self, h: Tensor) -> Tensor:
        active = (h @ self.weight + self.bias.unsqueeze(-2) > 0).to(h)
        return (active * self.loss.unsqueeze(-2)) @ self.weight.mT

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        moved = torch.zeros_like(h := h.float())
        for _ in range(self.steps):
            moved = moved - strength / self.steps * self._gradient(h + moved)
        return moved
