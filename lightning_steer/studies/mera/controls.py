"""What needs no steering: one constant answer, and another weighing of the labels."""

import torch
from torch import Tensor


def constant_class(train_y: Tensor, test_logp: Tensor) -> Tensor:
    """``[n]`` the label that was right most often in training, always."""
    return torch.full((len(test_logp),), int(train_y.bincount().argmax()))


def fitted_bias(logp: Tensor, y: Tensor) -> Tensor:
    """``[labels]`` what to add to the labels' log-probabilities ``[n, labels]`` so that they predict y best.

    Maximum likelihood, a convex problem: the most that any weighing of the labels can learn from the training rows.
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
    """``[labels]`` minus the log of the mean answer: afterwards all labels are as likely on average.

    Contextual calibration (Zhao et al. 2021, arXiv 2102.09690) with the training prompts in place of content-free ones,
    as batch calibration does (Zhou et al. 2024, arXiv 2309.17249); it knows no label.
    """
    return -logp.double().softmax(-1).mean(0).log()
