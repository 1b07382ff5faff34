"""K-Steering: its gradient is the classifier's, it finds what no vector can, and its unit is what the class says."""

from functools import partial

import pytest
import torch
from conftest import rows
from torch import Tensor

from lightning_steer.methods import KSteering, MeanDifference
from lightning_steer.records import Activations


def loss(method: KSteering, h: Tensor) -> Tensor:
    """The classifier's loss of each row, in float64."""
    weight, bias, readout = (getattr(method, name).double() for name in ("weight", "bias", "loss"))
    return (h.double() @ weight + bias).relu() @ readout


def corners(n: int = 80, seed: int = 0) -> Activations:
    """Positives at two opposite corners of a square, negatives at the other two: the classes have one mean."""
    g = torch.Generator().manual_seed(seed)
    side = torch.tensor([1.0, -1.0]).repeat(n // 2).unsqueeze(1)
    negative, positive = side * torch.tensor([[1.0, -1.0]]), side * torch.tensor([[1.0, 1.0]])
    noise = 0.2 * torch.randn(2 * n, 4, generator=g)
    noise = noise.unflatten(0, (2, n))
    noise = (noise - noise.mean(1, keepdim=True)).flatten(0, 1)
    h = torch.cat([torch.cat([negative, positive]), torch.zeros(2 * n, 2)], 1) + noise
    error = torch.cat([torch.ones(n), torch.zeros(n)])
    return Activations(h, error, (error < 0.5).long().unsqueeze(1), False)


@pytest.mark.parametrize("by_value", [False, True])
def test_the_gradient_in_closed_form_is_that_of_autograd(by_value: bool) -> None:
    method = KSteering(8, by_value=by_value).fit(rows())
    h = torch.randn(30, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(method, h).sum(), h)
    assert gradient.norm(dim=1).min() > 0.01
    torch.testing.assert_close(method.shift(h.detach(), 0.7), -0.7 * gradient.float(), rtol=1e-4, atol=1e-5)


def test_it_is_fitted_and_steers_in_inference_mode_as_elsewhere() -> None:
    seen, h = rows(), torch.randn(5, 8)
    with torch.inference_mode():
        inside = KSteering(8).fit(seen)(h, 1.0)
    assert torch.equal(inside, KSteering(8).fit(seen)(h, 1.0))


def test_strength_one_is_the_gap_between_the_classes_to_first_order() -> None:
    seen = rows(n=200)
    method, small = KSteering(8).fit(seen), 1e-4
    gap = loss(method, seen.negative).mean() - loss(method, seen.positive).mean()
    fall = (loss(method, seen.negative) - loss(method, seen.negative + method.shift(seen.negative, small))).mean()
    assert gap > 0.1
    torch.testing.assert_close(fall / small, gap, rtol=0.01, atol=0.0)


def test_classes_with_one_mean_are_moved_onto_each_other_where_no_vector_can() -> None:
    seen = corners()
    assert MeanDifference(4).fit(seen).vector.abs().max() < 1e-6
    moved = KSteering(4, steps=10).fit(seen)(seen.negative, 1.0)
    centres = torch.tensor([[1.0, 1.0, 0.0, 0.0], [-1.0, -1.0, 0.0, 0.0]])
    others = centres * torch.tensor([1.0, -1.0, 0.0, 0.0])
    is_near = torch.cdist(moved, centres).amin(1) < torch.cdist(moved, others).amin(1)
    assert is_near.float().mean() > 0.95


def test_several_steps_follow_the_classifier_further_down_than_one() -> None:
    seen = corners()
    one_step, ten = (loss(m, m(seen.negative, 2.0)).mean() for m in (KSteering(4, steps=s).fit(seen) for s in (1, 10)))
    assert ten < one_step - 0.1


def test_by_value_it_aims_at_the_values_of_the_positive_rows() -> None:
    """The classifier of all three values raises the positives' value against the mean of the two others."""
    seen = rows(n=300)
    method = KSteering(8, by_value=True).fit(seen)
    before, after = loss(method, seen.negative), loss(method, method(seen.negative, 1.0))
    assert loss(method, seen.positive).mean() < before.mean() - 1
    assert (after < before).all()


def three_values(n: int = 240, seed: int = 3) -> Activations:
    """Positives of value 1; of the negatives three in four of value 2 and one in four of value 0."""
    value = torch.tensor([2, 2, 2, 0]).repeat(n // 4)
    value = torch.cat([value, torch.ones_like(value)])
    centres = torch.tensor([[2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 2.0, 1.0]])
    h = centres[value] + 0.7 * torch.randn(2 * n, 4, generator=torch.Generator().manual_seed(seed))
    return Activations(h, (value != 1).float(), value.unsqueeze(1), False)


class Reference(torch.nn.Module):
    """The classifier and its aim written anew, with autograd and torch's AdamW: a logit for each of three values."""

    def __init__(self, seen: Activations) -> None:
        super().__init__()
        h, value = seen.h.double(), seen.value[:, 0]
        self.mean = h.mean(0)
        self.scale = (h - self.mean).square().mean().sqrt()
        self.inner, self.outer = torch.nn.Linear(4, 64).double(), torch.nn.Linear(64, 3).double()
        for tensor in (self.inner.bias, self.outer.weight, self.outer.bias):
            torch.nn.init.zeros_(tensor)
        self.inner.weight.data = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).double().T * 2**-0.5
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.01)
        for _ in range(200):
            optimizer.zero_grad()
            probability = self(h).sigmoid()
            right = torch.stack([torch.where(value == v, probability[:, v], 1 - probability[:, v]) for v in range(3)])
            (-right.log().sum() / len(h)).backward()
            optimizer.step()

    def forward(self, h: Tensor) -> Tensor:
        return self.outer(self.inner((h - self.mean) / self.scale).relu())

    def loss(self, h: Tensor) -> Tensor:
        logits = self(h)
        return 0.75 * logits[:, 2] + 0.25 * logits[:, 0] - logits[:, 1]

    def gradient(self, h: Tensor) -> Tensor:
        h = h.double().requires_grad_()
        return torch.autograd.grad(self.loss(h).sum(), h)[0]

    def step(self, seen: Activations, h: Tensor) -> Tensor:
        """The step of strength 1: it closes the gap of the mean losses of negative rows, to first order."""
        gap = self.loss(seen.negative.double()).mean() - self.loss(seen.positive.double()).mean()
        return -self.gradient(h) * gap / self.gradient(seen.negative).square().sum(1).mean()


def test_by_value_a_step_is_that_of_a_classifier_written_anew() -> None:
    seen, h = three_values(), torch.randn(50, 4)
    reference, method = Reference(seen), KSteering(4, by_value=True).fit(seen)
    expected = reference.step(seen, h)
    assert expected.norm(dim=1).min() > 0.1
    torch.testing.assert_close(method.shift(h, 1.0).double(), expected, rtol=1e-3, atol=1e-4)
    before, after = (reference(rows.double()).mean(0) for rows in (seen.negative, method(seen.negative, 1.0)))
    assert after[1] > before[1] + 1  # the positives' value
    assert after[2] < before[2] - 1  # that of most negatives


def test_settings_below_one_are_refused() -> None:
    for make in (partial(KSteering, hidden=0), partial(KSteering, steps=0)):
        with pytest.raises(ValueError, match="hidden and steps are at least 1"):
            make(8)
