"""Laws of all methods, each method's own theorem, and proof that a broken method is caught."""

from collections.abc import Callable
from functools import partial

import laws
import pytest
import torch
from conftest import rows
from torch import Tensor

from lightning_steer import methods
from lightning_steer.methods import (
    ACE,
    LEACE,
    Ablation,
    Clamp,
    Composed,
    Gated,
    GaussianTransport,
    KSteering,
    Logistic,
    LoReFT,
    MeanDifference,
    MidSteer,
    PCADirection,
    RandomDirection,
    Ridge,
    SteeringMethod,
)
from lightning_steer.records import Activations

WRAPPERS = ("Composed", "Gated")
SINGLE: dict[str, Callable[[int], SteeringMethod]] = {
    **{name: getattr(methods, name) for name in methods.__all__ if name not in ("SteeringMethod", *WRAPPERS)},
    "LoReFT": partial(LoReFT, rank=3),
    "LEACE by value": partial(LEACE, by_value=True),
    "ACE by value": partial(ACE, by_value=True),
    "MidSteer from a source": partial(MidSteer, source=1),
    "MidSteer removal": partial(MidSteer, remove=True),
    "KSteering by value, in steps": partial(KSteering, by_value=True, steps=3),
    "GaussianTransport without shrinkage": partial(GaussianTransport, shrinkage=0.0),
    "Ablation on one side": partial(Ablation, one_sided=True),
    "Clamp at a value": partial(Clamp, value=0.5),
    "PCADirection centred": partial(PCADirection, centred=True),
}
INSIDE = {name: make for name, make in SINGLE.items() if name != "SAEMERA"}  # trains an autoencoder at every fit
GATES = {f"Gated {name}": partial(Gated, method=make, eta=0.2, delta=0.2) for name, make in INSIDE.items()}
BY_THRESHOLD = {name: 0.1 for name, make in INSIDE.items() if make(8).identity_strength == 1}
SUMS = {
    f"Composed of {name} and a mean difference": partial(
        Composed, methods=[make, MeanDifference], strengths=[BY_THRESHOLD.get(name, 1.0), 2.0], orthogonal=name > "M"
    )
    for name, make in INSIDE.items()
}
VARIANTS = {
    **SINGLE,
    **GATES,
    **SUMS,
    "Composed": partial(Composed, methods=[MeanDifference, LEACE]),
    "Composed of gates": partial(Composed, methods=[GATES["Gated LEACE"], GATES["Gated MeanDifference"]]),
    "Gated composition": partial(Gated, method=partial(Composed, methods=[LEACE, Ridge]), eta=0.2, delta=0.2),
    "Gated": partial(Gated, method=MeanDifference, eta=0.2, delta=0.2, penalty=None),
}


@pytest.mark.parametrize("make", VARIANTS.values(), ids=list(VARIANTS))
@pytest.mark.parametrize("law", laws.LAWS, ids=[law.__name__ for law in laws.LAWS])
def test_law(law: Callable, make: Callable[[int], SteeringMethod]) -> None:
    torch.manual_seed(0)
    law(make, rows())


def test_every_method_is_listed() -> None:
    assert {
        cls.__name__ for cls in SteeringMethod.__subclasses__() if cls.__module__.startswith("lightning_steer")
    } == {name for name in methods.__all__ if name != "SteeringMethod"}


class NotTheIdentity(MeanDifference):
    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return super().shift(h, strength) + 1e-4


class LooksAtTheBatch(MeanDifference):
    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return super().shift(h, strength) * h.mean()


class OneStrengthForAll(MeanDifference):
    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return super().shift(h, torch.as_tensor(strength).flatten()[0])


class Widens(MeanDifference):
    def forward(self, h: Tensor, strength: Tensor | float = 1.0) -> Tensor:
        return super().forward(h.float(), strength)


class Forgets(MeanDifference):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        del self.vector
        self.vector = torch.zeros(width)


class NeverRefuses(MeanDifference):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.fitted = True


class FitsAnything(MeanDifference):
    def fit(self, seen: Activations) -> SteeringMethod:
        self.estimate(seen)
        self.fitted = True
        return self


class OneForTheStack(MeanDifference):
    def estimate(self, seen: Activations) -> None:
        super().estimate(seen)
        if self.vector.dim() > 1:
            self.vector = self.vector.mean(0)


class Wavers(MeanDifference):
    def estimate(self, seen: Activations) -> None:
        super().estimate(seen)
        self.vector = self.vector + 1e-3 * torch.randn(self.width)


BROKEN = {
    laws.is_the_identity_when_off: NotTheIdentity,
    laws.steers_every_row_by_itself: LooksAtTheBatch,
    laws.takes_a_strength_for_each_row: OneStrengthForAll,
    laws.keeps_shape_and_dtype: Widens,
    laws.is_the_same_after_saving_and_loading: Forgets,
    laws.refuses_before_it_is_fitted: NeverRefuses,
    laws.refuses_rows_of_another_width: FitsAnything,
    laws.refuses_numbers_that_are_not_finite: FitsAnything,
    laws.is_fitted_the_same_in_a_stack: OneForTheStack,
    laws.is_fitted_the_same_twice: Wavers,
}


@pytest.mark.parametrize("law", laws.LAWS, ids=[law.__name__ for law in laws.LAWS])
def test_law_catches_a_broken_copy(law: Callable) -> None:
    torch.manual_seed(0)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        law(BROKEN[law], rows())


def class_means(h: Tensor, value: Tensor) -> Tensor:
    return torch.stack([h[value == v].mean(0) for v in value.unique()])


def spread(means: Tensor) -> float:
    return float((means - means[0]).abs().max())


@pytest.mark.parametrize("method", [LEACE, ACE])
@pytest.mark.parametrize("by_value", [False, True])
def test_erasure_makes_class_means_equal(method: type[SteeringMethod], by_value: bool) -> None:
    seen = rows(n=200)
    classes = seen.value[:, 0] if by_value else seen.error.long()
    site_method = method(8, by_value=by_value).fit(seen)  # type: ignore[call-arg]
    assert spread(class_means(seen.h, classes)) > 0.5
    after = site_method(seen.h, 1.0)
    assert spread(class_means(after, classes)) < 1e-4
    torch.testing.assert_close(after.mean(0), seen.positive.mean(0), rtol=1e-4, atol=1e-4)


def test_rank_one_erasure_leaves_the_other_values_apart() -> None:
    """The broken copy of the law above: erasing positives against negatives does not erase every value."""
    seen = rows(n=200)
    assert spread(class_means(LEACE(8).fit(seen)(seen.h, 1.0), seen.value[:, 0])) > 0.1


def test_leace_changes_the_rows_less_than_any_other_projection_that_erases() -> None:
    seen = rows(n=200)
    leace, z = LEACE(8).fit(seen), (seen.error < 0.5).double()
    h = seen.h.double() - seen.h.double().mean(0)
    cost = float((h @ leace.erased.double()).square().sum(1).mean())
    cross = h.T @ (z - z.mean())
    for seed in range(20):
        reader = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        other = torch.outer(reader, cross) / (cross @ reader)  # h - h @ other has no covariance with z either
        assert float(((h - h @ other).T @ (z - z.mean())).abs().max()) < 1e-8
        assert float((h @ other).square().sum(1).mean()) >= cost - 1e-9


def test_mean_difference_at_strength_one_moves_one_mean_onto_the_other() -> None:
    seen = rows()
    site_method = MeanDifference(8).fit(seen)
    torch.testing.assert_close(site_method(seen.negative, 1.0).mean(0), seen.positive.mean(0), rtol=1e-5, atol=1e-5)
    assert (site_method(seen.negative, 0.5).mean(0) - seen.positive.mean(0)).abs().max() > 0.1


def test_transport_matches_mean_and_covariance() -> None:
    seen = rows(n=300, paired=False)
    site_method = GaussianTransport(8, shrinkage=0.0).fit(seen)
    moved = site_method(seen.negative, 1.0)
    torch.testing.assert_close(moved.mean(0), seen.positive.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cov(moved.T), torch.cov(seen.positive.T), rtol=1e-3, atol=1e-3)
    assert (torch.cov(seen.negative.T) - torch.cov(seen.positive.T)).abs().max() > 0.1
    torch.testing.assert_close(
        site_method.matrix, site_method.matrix.T, rtol=1e-4, atol=1e-5
    )  # the gradient of a convex function
    assert torch.linalg.eigvalsh(site_method.matrix).min() > 0


def test_ridge_is_the_minimum_of_its_objective() -> None:
    seen = rows(n=100)
    site_method = Ridge(8, penalty=0.3).fit(seen)
    x, y = (part.double() for part in (seen.negative, seen.positive - seen.negative))
    x, y = x - x.mean(0), y - y.mean(0)
    b = site_method.matrix.double().requires_grad_()
    scale = x.square().mean()
    objective = (y - x @ b).square().sum() / len(x) + 0.3 * scale * b.square().sum()
    (gradient,) = torch.autograd.grad(objective, b)
    assert gradient.abs().max() < 1e-4 * y.square().mean()


def test_ridge_tends_to_the_mean_difference() -> None:
    seen, h = rows(), torch.randn(5, 8)
    torch.testing.assert_close(Ridge(8, 1e9).fit(seen)(h), MeanDifference(8).fit(seen)(h), rtol=1e-4, atol=1e-4)


def test_ridge_refuses_rows_that_are_not_pairs() -> None:
    with pytest.raises(ValueError, match="needs pairs"):
        Ridge(8).fit(rows(paired=False))


def test_logistic_is_the_minimum_of_its_objective() -> None:
    seen = rows(n=100)
    w = Logistic(8).fit(seen).vector.double()
    h, y = seen.h.double(), (seen.error < 0.5).double()
    h = h / h.square().mean().sqrt()
    free = torch.zeros(9, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = h @ free[:8] + free[8]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="sum")
        loss = loss + 0.5 * free[:8].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.cosine_similarity(w, free[:8].detach(), dim=0) > 0.9999


@pytest.mark.parametrize("method", [Logistic, PCADirection, RandomDirection])
def test_directions_are_as_long_as_the_mean_difference(method: type[SteeringMethod]) -> None:
    seen = rows(stack=(3,))
    lengths = MeanDifference(8).fit(seen).vector.norm(dim=-1)
    torch.testing.assert_close(method(8).fit(seen).vector.norm(dim=-1), lengths, rtol=1e-5, atol=1e-5)


def test_another_seed_is_another_random_direction() -> None:
    first, second = (RandomDirection(8, seed).fit(rows()).vector for seed in (0, 1))
    assert torch.cosine_similarity(first, second, dim=0).abs() < 0.95


def test_loreft_starts_as_the_identity_and_moves_within_its_subspace() -> None:
    seen, h = rows(), torch.randn(6, 8)
    site_method = LoReFT(8, rank=3).fit(seen)
    torch.testing.assert_close(site_method(h), h)
    moved = laws.trained(lambda width: LoReFT(width, rank=3), seen)
    basis = torch.linalg.qr(moved.subspace).Q
    shift = moved.shift(h, 1.0)
    assert shift.norm() > 0.1
    torch.testing.assert_close(shift @ basis @ basis.T, shift, rtol=1e-4, atol=1e-5)


def test_settings_out_of_range_are_refused() -> None:
    for make in (lambda: LoReFT(8, rank=9), lambda: LoReFT(8, rank=0), lambda: Ridge(8, 0.0)):
        with pytest.raises(ValueError, match=r"rank|penalty"):
            make()
    with pytest.raises(ValueError, match="shrinkage"):
        GaussianTransport(8, 1.5)


def test_rows_of_one_kind_only_are_refused() -> None:
    seen = rows()
    with pytest.raises(ValueError, match=r"below and above 0\.5 are both needed"):
        MeanDifference(8).fit(seen._replace(error=torch.zeros_like(seen.error)))
