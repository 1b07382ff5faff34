"""MidSteer's theorem: the cross-covariance is the prescribed one, no affine map that does so changes less; LEACE."""

import pytest
import torch
from conftest import rows
from torch import Tensor

from lightning_steer.methods import LEACE, MidSteer


def cross(h: Tensor, z: Tensor) -> Tensor:
    """Covariance ``[d]`` of rows with a label, in float64."""
    h, z = h.double(), z.double()
    return (h - h.mean(0)).T @ (z - z.mean()) / len(z)


def test_the_source_lies_where_the_positives_lay_and_the_mean_is_kept() -> None:
    seen = rows(n=200)
    source, positive = seen.value[:, 0] == 1, seen.error < 0.5
    moved = MidSteer(8, source=1).fit(seen)(seen.h, 1.0)
    torch.testing.assert_close(cross(moved, source), cross(seen.h, positive), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved.mean(0), seen.h.mean(0), rtol=1e-4, atol=1e-4)
    assert (cross(seen.h, source) - cross(seen.h, positive)).abs().max() > 0.2


def test_no_affine_map_with_that_cross_covariance_changes_the_rows_less() -> None:
    seen = rows(n=200)
    z = seen.value[:, 0] == 1
    change = MidSteer(8, source=1).fit(seen).shift(seen.h, 1.0).double()
    cost, h = change.square().sum(1).mean(), seen.h.double() - seen.h.double().mean(0)
    target, c = cross(seen.h, seen.error < 0.5) - cross(seen.h, z), cross(seen.h, z)
    for seed in range(20):
        reader = c / c.norm() + 0.3 * torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        other = torch.outer(reader, target) / (c @ reader)  # h + h @ other has the same cross-covariance
        torch.testing.assert_close(cross(h @ other, z), target, rtol=1e-6, atol=1e-8)
        assert (h @ other).square().sum(1).mean() >= cost - 1e-6


def test_removal_is_leace_without_its_shift() -> None:
    seen, h = rows(n=200), torch.randn(20, 8)
    leace = LEACE(8).fit(seen)
    removed = leace.shift(h, 1.0) - (leace.target - leace.mean)
    torch.testing.assert_close(MidSteer(8, remove=True).fit(seen).shift(h, 1.0), removed, rtol=1e-4, atol=1e-5)


def test_with_two_classes_it_is_leace_switch_the_removal_at_strength_two() -> None:
    seen, h = rows(n=200), torch.randn(20, 8)
    removal = MidSteer(8, remove=True).fit(seen)
    torch.testing.assert_close(MidSteer(8).fit(seen)(h, 1.0), removal(h, 2.0), rtol=1e-4, atol=1e-5)


def test_with_as_many_rows_of_both_classes_their_means_are_exchanged() -> None:
    seen = rows(n=200)
    method = MidSteer(8).fit(seen)
    torch.testing.assert_close(method(seen.negative, 1.0).mean(0), seen.positive.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(method(seen.positive, 1.0).mean(0), seen.negative.mean(0), rtol=1e-4, atol=1e-4)


def test_directions_without_variance_are_left_alone() -> None:
    seen = rows(n=100)
    flat = seen._replace(h=torch.cat([seen.h, torch.full((200, 2), 3.0)], 1))
    shift = MidSteer(10).fit(flat).shift(torch.randn(20, 10), 1.0)
    torch.testing.assert_close(shift[:, 8:], torch.zeros(20, 2), rtol=0, atol=1e-5)
    assert shift.isfinite().all()


def test_a_source_that_no_row_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no row, or every row, has value 7"):
        MidSteer(8, source=7).fit(rows())
