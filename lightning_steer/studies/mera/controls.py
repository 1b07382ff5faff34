"""Controls that need no steering: a constant answer, and a bias added to the labels."""

import torch
from torch import Tensor


def constant_class(train_y: Tensor, test_logp: Tensor) -> Tensor:
    """Return the most frequent training label, repeated ``[n]``."""
    return torch.full((len(test_logp),), int(train_y.bincount().argmax()))


def fitted_bias(logp: Tensor, y: Tensor) -> Tensor:
    """Return the bias ``[labels]`` of log-probabilities ``[n, labels]`` with which they predict y best.

    It is the maximum-likelihood solution of a convex problem, so no other bias fits the training rows better.
    """
    bias = torch.zeros(logp.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(logp.double() + bias, y)
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[arg-type]
    return bias.detach() - bias.detach().mean()


def contextual_bias(logp: Tensor) -> Tensor:
    """Return the bias ``[labels]`` with which all labels are equally likely on average: minus the log mean answer.

    Contextual calibration (Zhao et al. 2021, arXiv 2102.09690) with the training prompts in place of content-free ones,
    as batch calibration does (Zhou et al. 2024, arXiv 2309.17249); it knows no label.
    """
    return -logp.double().softmax(-1).mean(0).log()
