"""What must hold for every steering method. Each law is a function, so that it can also be shown to fail."""

import copy
import io
from collections.abc import Callable

import pytest
import torch

from lightning_steer.errors import UserError
from lightning_steer.methods import SteeringMethod
from lightning_steer.records import Activations

Make = Callable[[int], SteeringMethod]


def is_the_identity_when_off(make: Make, seen: Activations) -> None:
    method = trained(make, seen)
    for dtype in (torch.float32, torch.bfloat16):
        h = (100 * torch.randn(3, 5, method.width)).to(dtype)
        assert torch.equal(method(h, method.identity_strength), h)
        assert torch.equal(method(h, torch.full((3,), method.identity_strength)), h)


def keeps_shape_and_dtype(make: Make, seen: Activations) -> None:
    method = trained(make, seen)
    for dtype in (torch.float32, torch.bfloat16):
        for shape in ((4, method.width), (2, 3, method.width), (2, 0, method.width)):
            steered = method(torch.randn(shape).to(dtype), 1.0)
            assert steered.shape == shape
            assert steered.dtype == dtype


def steers_every_row_by_itself(make: Make, seen: Activations) -> None:
    method = trained(make, seen)
    h = torch.randn(7, method.width)
    batch = method(h, 1.5)
    single = torch.cat([method(row, 1.5) for row in h.split(1)])
    torch.testing.assert_close(batch, single, rtol=1e-5, atol=1e-5)


def takes_a_strength_for_each_row(make: Make, seen: Activations) -> None:
    method = trained(make, seen)
    h, strengths = torch.randn(3, 4, method.width), torch.tensor([0.25, 1.0, 3.0])
    together = method(h, strengths)
    for i, strength in enumerate(strengths.tolist()):
        torch.testing.assert_close(together[i], method(h[i], strength), rtol=1e-5, atol=1e-5)


def is_the_same_after_saving_and_loading(make: Make, seen: Activations) -> None:
    method, other = trained(make, seen), make(seen.h.shape[-1])
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    h = torch.randn(5, method.width)
    assert torch.equal(method(h, 0.7), other(h, 0.7))


def refuses_before_it_is_fitted(make: Make, seen: Activations) -> None:
    with pytest.raises(UserError, match="not fitted"):
        make(seen.h.shape[-1])(seen.h.float(), 1.0)


def refuses_rows_of_another_width(make: Make, seen: Activations) -> None:
    with pytest.raises(ValueError, match=f"{seen.h.shape[-1]} wide"):
        make(seen.h.shape[-1] + 1).fit(seen)


def refuses_numbers_that_are_not_finite(make: Make, seen: Activations) -> None:
    h = seen.h.clone()
    h[3, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        make(h.shape[-1]).fit(seen._replace(h=h))


def is_fitted_the_same_in_a_stack(make: Make, seen: Activations) -> None:
    """Three problems solved at once are solved as each by itself."""
    other = seen._replace(h=seen.h.flip(-1) * 1.3)
    stacked = seen._replace(
        h=torch.stack([seen.h, other.h]),
        value=torch.stack([seen.value, seen.value]),
        sensitivity=None if seen.sensitivity is None else torch.stack([seen.sensitivity] * 2),
    )
    together = make(seen.h.shape[-1]).fit(stacked)
    h = torch.randn(4, seen.h.shape[-1])
    for i, alone in enumerate((seen, other)):
        method = make(seen.h.shape[-1]).fit(alone)
        if any(type(part).__name__ == "RandomDirection" for part in method.modules()):
            continue  # its draws are a sequence; the lengths are checked by its own test
        if method.trained:
            continue  # starting points are random; nothing is learned in fit
        torch.testing.assert_close(together(h.expand(2, -1, -1), 1.0)[i], method(h, 1.0), rtol=1e-4, atol=1e-4)


def is_fitted_the_same_twice(make: Make, seen: Activations) -> None:
    h = torch.randn(4, seen.h.shape[-1])
    assert torch.equal(make(h.shape[-1]).fit(seen)(h, 1.0), make(h.shape[-1]).fit(copy.deepcopy(seen))(h, 1.0))


LAWS = [
    is_the_identity_when_off,
    keeps_shape_and_dtype,
    steers_every_row_by_itself,
    takes_a_strength_for_each_row,
    is_the_same_after_saving_and_loading,
    refuses_before_it_is_fitted,
    refuses_rows_of_another_width,
    refuses_numbers_that_are_not_finite,
    is_fitted_the_same_in_a_stack,
    is_fitted_the_same_twice,
]


def trained(make: Make, seen: Activations) -> SteeringMethod:
    """A fitted map that is no longer the identity, also where training starts from it."""
    method = make(seen.h.shape[-1]).fit(seen)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return method
