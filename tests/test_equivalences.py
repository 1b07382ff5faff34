"""Methods that are special cases of each other agree, and what is proved of a method holds."""

import itertools

import pytest
import torch
from conftest import rows
from sklearn.decomposition import PCA
from torch import Tensor

from lightning_steer.methods import ACE, LEACE, Ablation, Angular, Clamp, Conceptor, MeanDifference, PCADirection
from lightning_steer.records import Activations

SHARES = (0.25, 0.5, 1.0)


def moved_along(seen: Activations, by: float) -> Activations:
    """The same rows, all moved along their mean difference."""
    difference = seen.positive.mean(0) - seen.negative.mean(0)
    return seen._replace(h=seen.h + by * difference / difference.norm())


def close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, check_dtype=False)


# Ablation


@pytest.mark.parametrize("strength", SHARES)
def test_clamp_at_zero_is_ablation(strength: float) -> None:
    seen, h = moved_along(rows(), 2.0), torch.randn(20, 8)
    ablated = Ablation(8).fit(seen)(h, strength)
    close(Clamp(8, value=0.0).fit(seen)(h, strength), ablated)
    assert (Clamp(8, value=1.0).fit(seen)(h, strength) - ablated).abs().max() > 0.05


@pytest.mark.parametrize("strength", SHARES)
def test_leace_of_centred_and_white_rows_is_ablation_and_a_shift(strength: float) -> None:
    seen = rows(n=200)
    h = seen.h.double() - seen.h.double().mean(0)
    values, axes = torch.linalg.eigh(h.T @ h / len(h))
    white = seen._replace(h=h @ (axes * values.rsqrt()) @ axes.T)
    leace, x = LEACE(8).fit(white), torch.randn(20, 8)
    close(leace(x, strength) - strength * (leace.target - leace.mean), Ablation(8).fit(white)(x, strength))
    leace = LEACE(8).fit(seen)  # as they came, the two differ
    erased = leace(x, strength) - strength * (leace.target - leace.mean)
    assert (erased - Ablation(8).fit(seen)(x, strength)).abs().max() > 0.05


def test_ablation_leaves_no_component_and_nothing_else_to_do() -> None:
    seen, h = rows(), torch.randn(20, 8)
    method = Ablation(8).fit(seen)
    direction = torch.nn.functional.normalize(seen.positive.mean(0) - seen.negative.mean(0), dim=0)
    once = method(h, 1.0)
    close(once @ direction, torch.zeros(20))
    close(once.square().sum(1) + (h @ direction).square(), h.square().sum(1))  # nothing else is gone
    close(method(once, 1.0), once)
    close(method(h, 2.0) @ direction, -(h @ direction))


def test_one_sided_ablation_spares_the_rows_on_the_positive_side() -> None:
    for by in (0.0, 50.0, -50.0):  # wherever zero lies
        seen = moved_along(rows(), by)
        method = Ablation(8, one_sided=True).fit(seen)
        means = torch.stack([seen.positive.mean(0), seen.negative.mean(0)])
        middle = (means @ method.direction).mean()
        positive_side = seen.h @ method.direction > middle
        steered = method(seen.h, 1.0)
        assert 0.3 < positive_side.float().mean() < 0.7
        assert torch.equal(steered[positive_side], seen.h[positive_side])
        close(steered @ method.direction, (seen.h @ method.direction).clamp(min=middle.item()))
        close(method(steered, 1.0), steered)


# Clamp


@pytest.mark.parametrize("strength", SHARES)
def test_clamp_up_to_the_positive_mean_is_ace(strength: float) -> None:
    seen, h = moved_along(rows(), 2.0), torch.randn(20, 8)
    close(Clamp(8).fit(seen)(h, strength), ACE(8).fit(seen)(h, strength))
    assert (Clamp(8).fit(seen)(h, 2.0) - ACE(8).fit(seen)(h, 2.0)).abs().max() > 0.1


@pytest.mark.parametrize("strength", [-3.0, -1.0, -0.5, 0.5, 1.0, 1.5, 3.0])
def test_clamp_moves_the_mean_of_a_class_as_the_mean_difference_does(strength: float) -> None:
    seen = moved_along(rows(), 2.0)
    method, added = Clamp(8).fit(seen), MeanDifference(8).fit(seen)
    origin = seen.negative if strength > 0 else seen.positive
    steered = method(origin, strength)
    close(steered.mean(0), added(origin, strength).mean(0))
    across = torch.eye(8) - torch.outer(method.direction, method.direction)
    close(steered @ across, origin @ across)
    spread = (steered @ method.direction).std()
    assert spread < 1e-4 if abs(strength) >= 1 else spread > 0.1


# PCADirection


@pytest.mark.parametrize("centred", [False, True])
def test_pca_direction_is_the_first_component_of_the_pairs(centred: bool) -> None:
    """As scikit-learn finds it: of the differences, which it centres, or of both rows around their pair's middle."""
    seen = rows(n=40)
    difference = (seen.positive - seen.negative).numpy()
    around = (
        difference if centred else torch.cat([seen.positive - seen.negative, seen.negative - seen.positive]).numpy()
    )
    axis = torch.from_numpy(PCA(n_components=1).fit(around).components_[0]).float()
    mean = (seen.positive - seen.negative).mean(0)
    expected = axis * mean.norm() * torch.sign(axis @ mean)
    close(PCADirection(8, centred).fit(seen).vector, expected)
    assert (PCADirection(8, not centred).fit(seen).vector - expected).abs().max() > 0.05


def test_pca_direction_does_not_depend_on_which_row_of_a_pair_comes_first_but_for_the_sign() -> None:
    seen = rows(n=40)
    vector = PCADirection(8).fit(seen).vector
    swapped = seen._replace(error=1 - seen.error)
    close(PCADirection(8).fit(swapped).vector, -vector)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    close(PCADirection(8).fit(seen._replace(h=seen.h[torch.cat([order, order + 40])])).vector, vector)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1))).Q
    close(PCADirection(8).fit(seen._replace(h=3 * seen.h @ turn)).vector, 3 * vector @ turn)


@pytest.mark.parametrize("centred", [False, True])
def test_pca_direction_without_pairs_is_that_of_all_pairs(centred: bool) -> None:
    seen = rows(n=12, paired=False)
    pairs = list(itertools.product(range(12), range(12)))
    negative, positive = (seen.negative[[i for i, _ in pairs]], seen.positive[[j for _, j in pairs]])
    error = torch.cat([torch.ones(144), torch.zeros(144)])
    every = Activations(torch.cat([negative, positive]), error, torch.zeros(288, 1).long(), True)
    close(PCADirection(8, centred).fit(seen).vector, PCADirection(8, centred).fit(every).vector)


def test_one_pair_has_no_centred_component() -> None:
    seen = rows(n=1)
    close(PCADirection(8).fit(seen).vector, MeanDifference(8).fit(seen).vector)
    assert not PCADirection(8, centred=True).fit(seen).vector.any()


# Angular


def angles(method: Angular, h: Tensor) -> Tensor:
    """Degrees between a row's part in the plane and the mean difference, from 0 to 180."""
    x, y = (h @ method.plane.T).unbind(1)
    return torch.rad2deg(torch.atan2(y.abs(), x))


@pytest.mark.parametrize("strength", [-180.0, -100.0, -7.0, 3.0, 40.0, 120.0, 180.0])
def test_angular_keeps_lengths_and_turns_by_the_angle_that_is_said(strength: float) -> None:
    seen = rows()
    method, h = Angular(8).fit(seen), torch.randn(50, 8)
    close(method.plane @ method.plane.T, torch.eye(2))
    close(method.plane[0], torch.nn.functional.normalize(MeanDifference(8).fit(seen).vector, dim=0))
    steered = method(h, strength)
    close(steered.norm(dim=1), h.norm(dim=1))
    across = torch.eye(8) - method.plane.T @ method.plane
    close(steered @ across, h @ across)
    assert (angles(method, steered) - (angles(method, h) - strength).clamp(0, 180)).abs().max() < 0.01
    sides = (h @ method.plane[1] > 0) == (steered @ method.plane[1] > 0)
    assert sides[(angles(method, steered) > 1) & (angles(method, steered) < 179)].all()  # the shorter way


def test_angular_at_180_degrees_is_the_target_angle_of_the_paper() -> None:
    method, h = Angular(8).fit(rows()), torch.randn(50, 8)
    first, second = method.plane
    part = h @ torch.outer(first, first) + h @ torch.outer(second, second)
    close(method(h, 180.0), h - part + part.norm(dim=1, keepdim=True) * first)
    close(method(h, -180.0), h - part - part.norm(dim=1, keepdim=True) * first)


def test_no_plane_through_the_mean_difference_holds_more_of_the_rows() -> None:
    seen = moved_along(rows(), 0.0)
    method = Angular(8).fit(seen)
    held = (seen.h @ method.plane[1]).square().sum()
    others = torch.randn(8, 200, generator=torch.Generator().manual_seed(0))
    others = torch.nn.functional.normalize(others - torch.outer(method.plane[0], method.plane[0] @ others), dim=0)
    assert ((seen.h @ others).square().sum(0) <= held).all()


def test_angular_without_a_mean_difference_turns_nothing() -> None:
    seen = rows()
    same = torch.cat([seen.negative, seen.negative])
    h = torch.randn(5, 8)
    assert torch.equal(Angular(8).fit(seen._replace(h=same))(h, 90.0), h)
    with pytest.raises(ValueError, match="width of 2 or more, not 1"):
        Angular(1)


# Conceptor


def test_conceptor_at_an_infinite_aperture_is_the_projector_onto_the_span() -> None:
    seen, h = rows(), torch.randn(20, 8)
    close(Conceptor(8, aperture=1e7).fit(seen)(h, 1.0), h)  # at full rank the identity
    basis = torch.linalg.qr(torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    projector = basis @ basis.T
    method = Conceptor(8, aperture=1e9).fit(seen._replace(h=seen.h.double() @ projector))
    close(method(h, 1.0), h.double() @ projector)
    close(method(h, 0.5), (h + h.double() @ projector) / 2)
    close(Conceptor(8, aperture=1e-7).fit(seen)(h, 1.0), torch.zeros(20, 8))


def test_conceptor_is_the_minimum_of_its_objective() -> None:
    """``mean |h - C h|^2 + aperture^-2 |C|^2`` over the positive rows, in units of their mean square."""
    seen = rows(n=100)
    c = Conceptor(8, aperture=2.0).fit(seen).matrix.double().requires_grad_()
    h = seen.positive.double() / seen.positive.double().square().mean().sqrt()
    objective = (h - h @ c.T).square().sum() / len(h) + 2.0**-2 * c.square().sum()
    (gradient,) = torch.autograd.grad(objective, c)
    assert gradient.abs().max() < 1e-5
    larger = seen._replace(h=1000 * seen.h)
    close(Conceptor(8, aperture=2.0).fit(larger).matrix, c.detach())


def test_an_aperture_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="aperture must be positive, not 0"):
        Conceptor(8, aperture=0.0)
