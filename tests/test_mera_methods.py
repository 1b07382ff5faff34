"""MERA's theorem: what is predicted after an edit is the threshold, and no shorter shift gets there."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_steer.methods import (
    MERA,
    Contrastive,
    ContrastiveMERA,
    LogisticMERA,
    ProbeAdditive,
    SteeringMethod,
)
from lightning_steer.probes.error_probe import CLIP, fit_error_probe, logit_error
from lightning_steer.records import Activations

D, N = 12, 400
GATED = {
    "MERA": partial(MERA, penalty=0.01),
    "MERA, least squares": partial(MERA, penalty=0.0),
    "MERA, ridge": partial(MERA, sparse=False, penalty=0.1),
    "MERA, Mahalanobis": partial(MERA, mahalanobis=True),
    "ContrastiveMERA": partial(ContrastiveMERA, k=50),
    "LogisticMERA": LogisticMERA,
    "LogisticMERA, L2": partial(LogisticMERA, sparse=False),
}
gated = pytest.mark.parametrize("make", GATED.values(), ids=list(GATED))
ALPHAS = [0.001, 0.01, 0.1, 0.3, 0.5, 0.9]


def graded(seed=0, n=N, outlier=1.0):
    """Correlated rows, one feature of another scale, and errors that depend on a direction of low variance."""
    g = torch.Generator().manual_seed(seed)
    h = torch.randn(n, D, generator=g) @ torch.randn(D, D, generator=g) + torch.randn(D, generator=g)
    h[:, 3] *= outlier
    x = (h - h.mean(0)) / h.std(0)
    error = (2 * x @ torch.randn(D, generator=g) - 1 + 0.5 * torch.randn(n, generator=g)).sigmoid()
    return Activations(h, error, torch.zeros(n, 1, dtype=torch.int64), False)


def predicted(method: SteeringMethod, h: Tensor) -> Tensor:
    """Error that the map's own probe predicts, in float64."""
    return (h.double() @ method.weight.double() + method.intercept.double()).sigmoid()


def exact(method: SteeringMethod, h: Tensor, alpha: float) -> None:
    """The law: predicted error alpha after an edit; rows at or below alpha unchanged, bit for bit."""
    before, after = predicted(method, h), method(h, alpha)
    above = before > alpha * (1 + 1e-4) + 1e-6
    below = before < alpha * (1 - 1e-4) - 1e-6
    assert above.any()
    assert (predicted(method, after)[above] - alpha).abs().max() < 1e-5
    assert torch.equal(after[below], h[below])
    assert (after[above] != h[above]).any(-1).all()


@gated
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("outlier", [1.0, 1000.0])
def test_the_predicted_error_after_an_edit_is_the_threshold(make, alpha, outlier):
    seen = graded(outlier=outlier)
    exact(make(D).fit(seen), seen.h, alpha)


class MixesUnits(MERA):
    """Error 1 of the release: the condition compares a logit with a probability."""

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        e = h.float() @ self.weight.unsqueeze(-1) + self.intercept - strength
        return torch.where(e > 0, (math.log(strength / (1 - strength)) - e - strength) * self.along, 0.0)


class WithoutIntercept(MERA):
    """Error 11 of the release."""

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        e = h.float() @ self.weight.unsqueeze(-1) - math.log(strength / (1 - strength))
        return torch.where(e > 0, -e * self.along, 0.0)


class Always(MERA):
    """Half of the release's thresholds steer every row."""

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return -(h.float() @ self.weight.unsqueeze(-1) + self.intercept - math.log(strength / (1 - strength))) * (
            self.along
        )


@pytest.mark.parametrize("broken", [MixesUnits, WithoutIntercept, Always])
def test_the_law_catches_a_broken_copy(broken):
    seen = graded()
    with pytest.raises(AssertionError):
        exact(broken(D).fit(seen), seen.h, 0.3)


@gated
def test_every_threshold_steers_the_rows_above_it_and_no_others(make):
    """Of the release's ten thresholds five always steer and three never."""
    seen = graded()
    method = make(D).fit(seen)
    for alpha in np.linspace(0, 1, 12)[1:-1]:
        edited = (method(seen.h, float(alpha)) != seen.h).any(-1)
        assert torch.equal(edited, (seen.h @ method.weight + method.intercept) > math.log(alpha / (1 - alpha)))


@given(st.integers(0, 10_000), st.sampled_from(ALPHAS), st.floats(1e-3, 3.0))
@settings(max_examples=60)
def test_no_shorter_shift_reaches_the_threshold(seed, alpha, size):
    """Any other shift to the same side of the plane is longer: in Euclidean length, and in the covariance's."""
    seen = graded()
    g = torch.Generator().manual_seed(seed)
    x = seen.h.double() - seen.h.double().mean(0)
    sigma = x.T @ x / N
    for mahalanobis in (False, True):
        method = MERA(D, mahalanobis=mahalanobis).fit(seen)
        metric = torch.linalg.inv(sigma) if mahalanobis else torch.eye(D).double()
        h = seen.h[predicted(method, seen.h) > alpha][:20].double()
        shift = method.shift(h, alpha).double()
        other = shift + size * shift.norm(dim=-1, keepdim=True) * torch.randn(h.shape, generator=g).double()
        reached = predicted(method, h + other) <= alpha + 1e-9
        length, theirs = (((v @ metric) * v).sum(-1) for v in (shift, other))
        assert (theirs[reached] >= length[reached] * (1 - 1e-5)).all()


def test_along_the_wrong_direction_the_shift_is_longer():
    """The property test can fail: the Mahalanobis shift is not the shortest in Euclidean length, nor the reverse."""
    seen = graded()
    euclid, ours = MERA(D).fit(seen), MERA(D, mahalanobis=True).fit(seen)
    x = seen.h.double() - seen.h.double().mean(0)
    inverse = torch.linalg.inv(x.T @ x / N)
    v, u = euclid.shift(seen.h, 0.1).double(), ours.shift(seen.h, 0.1).double()
    edited = v.norm(dim=-1) > 0
    assert (u.norm(dim=-1)[edited] > 1.05 * v.norm(dim=-1)[edited]).all()
    assert (((v @ inverse) * v).sum(-1)[edited] > 1.05 * ((u @ inverse) * u).sum(-1)[edited]).all()


def test_the_mahalanobis_direction_is_the_covariance_with_the_prediction():
    seen = graded()
    method = MERA(D, mahalanobis=True).fit(seen)
    prediction = seen.h.double() @ method.weight.double()
    x = seen.h.double() - seen.h.double().mean(0)
    pattern = x.T @ prediction / N / prediction.var(correction=0)
    torch.testing.assert_close(method.along.double(), pattern, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mahalanobis", [False, True])
def test_a_probe_of_nothing_but_zeros_edits_nothing(mahalanobis):
    seen = graded()
    method = MERA(D, penalty=100.0, mahalanobis=mahalanobis).fit(seen)
    assert (method.weight == 0).all()
    for alpha in (0.001, 0.5):
        assert torch.equal(method(seen.h, alpha), seen.h)
    for other in (ContrastiveMERA(D, penalty=100.0), LogisticMERA(D, penalty=100.0), ProbeAdditive(D, penalty=100.0)):
        steered = other.fit(seen)(seen.h, 0.5)
        assert steered.isfinite().all()
        assert torch.equal(steered, seen.h)


def lowers(method: SteeringMethod, seen: Activations, strength: float) -> None:
    """The law of direction: the error that an independent probe predicts falls."""
    probe = fit_error_probe(seen.h, seen.error, 0.0, False)
    before, after = (h.double() @ probe.weight + probe.intercept for h in (seen.h, method(seen.h, strength)))
    assert after.mean() < before.mean() - 0.1


DIRECTED = {**GATED, "Contrastive": Contrastive, "ProbeAdditive": ProbeAdditive}


@pytest.mark.parametrize("make", DIRECTED.values(), ids=list(DIRECTED))
def test_errors_are_steered_down(make):
    seen = graded()
    method = make(D).fit(seen)
    lowers(method, seen, 0.1 if method.identity_strength == 1 else 1.0)


@pytest.mark.parametrize("kind", [LogisticMERA, ContrastiveMERA, Contrastive])
def test_the_law_of_direction_catches_the_releases_error(kind):
    """Error 4: the logistic and contrastive variants are steered the other way."""

    class Backwards(kind):
        def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
            return -super().shift(h, strength)

    seen = graded()
    method = Backwards(D).fit(seen)
    with pytest.raises(AssertionError):
        lowers(method, seen, 0.1 if method.identity_strength == 1 else 1.0)


def test_a_contrast_that_does_not_lower_the_predicted_error_is_not_followed():
    seen = graded()
    lowest = seen.error.argmin()
    alike = seen._replace(error=torch.full((N,), 0.5).index_fill(0, lowest, 0.4))  # nothing that a lasso would learn
    method = ContrastiveMERA(D, k=1, penalty=10.0).fit(alike)
    assert torch.equal(method(seen.h, 0.01), seen.h)


@pytest.mark.parametrize("kind", [Contrastive, ContrastiveMERA])
def test_every_k_is_another_direction(kind):
    """Errors 5 and 6 of the release: one set of weights for all, and only the last k."""
    seen = graded()
    along = [kind(D, k=k).fit(seen) for k in (50, 100, 200)]
    vectors = [method.vector if kind is Contrastive else method.along for method in along]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(vectors[i], vectors[j], rtol=1e-3)


def test_contrastive_is_the_difference_of_the_extremes():
    seen = graded(n=40)
    order = seen.error.argsort()
    expected = seen.h[order[:5]].mean(0) - seen.h[order[-5:]].mean(0)
    torch.testing.assert_close(Contrastive(D, k=5).fit(seen).vector, expected)
    halves = seen.h[order[:20]].mean(0) - seen.h[order[20:]].mean(0)
    torch.testing.assert_close(Contrastive(D, k=100).fit(seen).vector, halves)


def test_additive_lowers_the_predicted_logit_by_its_strength():
    seen = graded()
    method = ProbeAdditive(D).fit(seen)
    probe = fit_error_probe(seen.h, seen.error, 0.01, True)
    before, after = (h.double() @ probe.weight for h in (seen.h, method(seen.h, 2.5)))
    torch.testing.assert_close(before - after, torch.full((N,), 2.5).double(), rtol=0, atol=1e-3)


@gated
@pytest.mark.parametrize("alpha", [1.0, 1.5, 7.0])
def test_from_one_on_nothing_is_above_the_threshold(make, alpha):
    seen = graded()
    assert torch.equal(make(D).fit(seen)(seen.h, alpha), seen.h)


@gated
def test_the_lowest_threshold_is_finite(make):
    seen = graded()
    steered = make(D).fit(seen)(seen.h, 0.0)
    assert steered.isfinite().all()
    assert (steered != seen.h).any()


def test_logits_of_errors_are_finite_also_in_float32():
    """np.clip(float32, 1e-8, 1 - 1e-8) is 1, whose logit is infinite."""
    logits = logit_error(torch.tensor([0.0, 1e-12, 0.5, 1 - 1e-9, 1.0]))
    limit = math.log((1 - CLIP) / CLIP)
    torch.testing.assert_close(logits, torch.tensor([-limit, -limit, 0.0, limit, limit]).double())
    with pytest.raises(ValueError, match=r"errors lie in \[0, 1\]"):
        logit_error(torch.tensor([0.5, 1.5]))
    with pytest.raises(ValueError, match="errors lie in"):
        logit_error(torch.tensor([0.5, math.nan]))


def test_the_probes_intercept_is_that_of_the_rows():
    """Error 11: without an intercept a mean far from zero is paid for by the weights."""
    seen = graded()
    probe = fit_error_probe(seen.h + 50, seen.error, 0.01, True)
    again = fit_error_probe(seen.h, seen.error, 0.01, True)
    torch.testing.assert_close(probe.weight, again.weight, rtol=1e-3, atol=1e-5)
    prediction = (seen.h + 50).double() @ probe.weight + probe.intercept
    torch.testing.assert_close(prediction.mean(), logit_error(seen.error).mean())


@pytest.mark.parametrize("bad", [0, -3])
def test_k_is_at_least_one(bad):
    for kind in (Contrastive, ContrastiveMERA):
        with pytest.raises(ValueError, match=f"at least 1, not {bad}"):
            kind(D, k=bad)
