"""Moments: however rows arrive, the sums are those of all rows at once, and regressions read off them are exact."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score, root_mean_squared_error

from lightning_steer.probes.moments import Moments
from lightning_steer.probes.normal_equations import NormalEquations

LAYERS, N, D, FOLDS = 2, 120, 7, 4


def rows(seed=0, n=N, far=3.0):
    """Correlated features of unequal scale whose means lie `far` standard deviations from zero."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(LAYERS, D, D, generator=g, dtype=torch.float64)
    scale = torch.logspace(-2, 3, D, dtype=torch.float64)
    h = (torch.randn(LAYERS, n, D, generator=g, dtype=torch.float64) @ mix + far) * scale
    y = (h[0] / scale) @ torch.randn(D, generator=g, dtype=torch.float64) + torch.randn(n, generator=g) + far
    return h, y, torch.randint(FOLDS, (n,), generator=g)


def same(a, b, tolerance=1e-10):
    """Two sets of moments agree after they are brought to one shift, relative to the size of each sum's terms."""
    b = b.moved(a.s, a.t)
    length = a.hh.diagonal(dim1=-2, dim2=-1).sqrt() + 1e-300
    torch.testing.assert_close(a.count, b.count, rtol=0, atol=0)
    for sums, other_sums, scale in [
        (a.h, b.h, length * a.count.max().sqrt()),
        (a.y, b.y, a.yy.sqrt() * a.count.max().sqrt()),
        (a.hh, b.hh, length.unsqueeze(-1) * length.unsqueeze(-2)),
        (a.hy, b.hy, length * a.yy.sqrt().unsqueeze(-1)),
        (a.yy, b.yy, a.yy),
    ]:
        assert ((sums - other_sums).abs() <= tolerance * scale).all()


@given(st.lists(st.integers(1, N - 1), max_size=5), st.integers(0, 3), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_batches_and_their_order_do_not_matter(cuts, seed, random):
    h, y, fold = rows(seed)
    whole = Moments.like(h, y, FOLDS).add(h, y, fold)
    edges = [0, *sorted(cuts), N]
    batches = [slice(a, b) for a, b in itertools.pairwise(edges) if a < b]
    random.shuffle(batches)
    parts = Moments.like(h[:, batches[0]], y[batches[0]], FOLDS)  # the shift is the first batch's: also one row's
    for batch in batches:
        parts.add(h[:, batch], y[batch], fold[batch])
    same(whole, parts)


@pytest.mark.parametrize("share", [0.5, 0.02])
def test_two_ranks_are_one(share):
    h, y, fold = rows()
    cut = int(share * N)
    whole = Moments.like(h, y, FOLDS).add(h, y, fold)
    ranks = [slice(None, cut), slice(cut, None)]
    first, second = (Moments.like(h[:, r], y[r], FOLDS).add(h[:, r], y[r], fold[r]) for r in ranks)
    same(whole, first.merge(second))
    same(whole, second.merge(first))
    # As a module does it: agree on the shift, then all_reduce(sum) every additive field in place.
    second = second.moved(first.s, first.t)
    for ours, theirs in zip(first.sums, second.sums, strict=True):
        ours += theirs
    same(whole, first)


def test_merging_does_not_depend_on_order():
    h, y, fold = rows()
    a, b, c = (Moments.like(h[:, i::3], y[i::3], FOLDS).add(h[:, i::3], y[i::3], fold[i::3]) for i in range(3))
    same(a.merge(b).merge(c), c.merge(b.merge(a)))


@pytest.mark.parametrize("far", [0.0, 1e3, 1e6])
def test_a_mean_far_from_zero_costs_no_digits(far):
    h, y, _ = rows(far=far)
    shifted = NormalEquations.of(Moments.like(h[:, :10], y[:10]).add(h, y), standardise=False)
    for layer in range(LAYERS):
        expected = np.cov(h[layer].numpy().T, bias=True)
        length = np.sqrt(np.diag(expected))
        error = np.abs(shifted.gram[0, layer].numpy() - expected) / np.outer(length, length)
        assert error.max() < 1e-9
    if far == 1e6:  # and this is due to the shift
        plain = NormalEquations.of(Moments.about(torch.zeros(LAYERS, D), torch.zeros(())).add(h, y), standardise=False)
        assert np.abs(plain.gram[0, 1].numpy() / expected - 1).max() > 1e-6


def test_training_moments_are_those_of_the_other_folds_rows():
    h, y, fold = rows()
    training = Moments.like(h, y, FOLDS).add(h, y, fold).training()
    for k in range(FOLDS):
        refit = Moments.like(h, y).add(h[:, fold != k], y[fold != k])
        same(refit, Moments._make([*(x[k : k + 1] for x in training.sums), training.s, training.t]))
        for ours, theirs in zip(NormalEquations.of(training), NormalEquations.of(refit), strict=True):
            torch.testing.assert_close(ours[k], theirs[0], rtol=1e-10, atol=1e-10)


def test_any_union_of_folds():
    h, y, fold = rows()
    union = Moments.like(h, y, FOLDS).add(h, y, fold).over([[0, 2], [3]])
    picked = (fold == 0) | (fold == 2)
    same(
        Moments.like(h, y).add(h[:, picked], y[picked]), Moments._make([*(x[:1] for x in union.sums), union.s, union.t])
    )


def test_a_feature_that_varies_in_the_held_out_rows_only_is_constant_in_training():
    h, y, fold = rows()
    h[:, :, 3] = 5e4
    h[:, fold == 1, 3] += torch.randn(int((fold == 1).sum()), dtype=torch.float64) * 1e4
    moments = Moments.like(h, y, FOLDS).add(h, y, fold)
    equations = NormalEquations.of(moments.training())
    assert (equations.inverse_scale[1, :, 3] == 0).all()
    assert (equations.inverse_scale[[0, 2, 3], :, 3] > 0).all()
    assert (equations.gram[1, :, 3] == 0).all()
    assert (equations.gram[1, :, :, 3] == 0).all()
    assert (equations.cross[1, :, 3] == 0).all()


def test_a_constant_feature_is_constant_in_any_float_type():
    for value in (0.1, 1e5, 0.0):
        h, y, _ = rows()
        h[:, :, 0] = value
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            equations = NormalEquations.of(Moments.like(h.to(dtype)[:, :7], y[:7]).add(h.to(dtype), y))
            assert (equations.inverse_scale[..., 0] == 0).all()
            assert (equations.inverse_scale[..., 1:] > 0).all()


def test_standardised_gram_is_the_correlation_matrix():
    h, y, _ = rows()
    equations = NormalEquations.of(Moments.like(h, y).add(h, y))
    for layer in range(LAYERS):
        expected = np.corrcoef(h[layer].numpy().T)
        np.testing.assert_allclose(equations.gram[0, layer].numpy(), expected, atol=1e-12)


def test_scores_are_those_of_the_rows():
    h, y, fold = rows()
    moments = Moments.like(h, y, FOLDS).add(h, y, fold)
    g = torch.Generator().manual_seed(5)
    weight = torch.randn(FOLDS, LAYERS, 3, D, generator=g, dtype=torch.float64) / h.std(1)[:, None]
    weight[..., 0, :] = 0  # a silent probe
    intercept = torch.randn(FOLDS, LAYERS, 3, generator=g, dtype=torch.float64)
    r2, rmse = moments.r2(weight, intercept), moments.rmse(weight, intercept)
    for k in range(FOLDS):
        for layer in range(LAYERS):
            for p in range(3):
                truth = y[fold == k].numpy()
                guess = (h[layer, fold == k] @ weight[k, layer, p] + intercept[k, layer, p]).numpy()
                assert r2[k, layer, p] == pytest.approx(r2_score(truth, guess), rel=1e-9, abs=1e-9)
                assert rmse[k, layer, p] == pytest.approx(root_mean_squared_error(truth, guess), rel=1e-9)


def test_scores_without_meaning_are_nan():
    h, _, fold = rows()
    moments = Moments.like(h, torch.ones(N), FOLDS + 1).add(h, torch.ones(N), fold)
    weight, intercept = torch.zeros(FOLDS + 1, LAYERS, 1, D).double(), torch.ones(FOLDS + 1, LAYERS, 1).double()
    assert moments.r2(weight, intercept).isnan().all()  # y is constant
    assert (moments.rmse(weight, intercept)[:-1] == 0).all()
    assert moments.rmse(weight, intercept)[-1].isnan().all()  # no rows


def test_layers_side_by_side_are_layers_one_by_one():
    h, y, fold = rows()
    together = Moments.like(h, y, FOLDS).add(h, y, fold)
    for layer in range(LAYERS):
        rows_of_layer = slice(layer, layer + 1)
        same(Moments.like(h[rows_of_layer], y, FOLDS).add(h[rows_of_layer], y, fold), together.at(layer))
        assert together.at(layer).hh.data_ptr() == together.hh[:, rows_of_layer].data_ptr()  # a view, not a gigabyte


def test_targets_may_differ_between_problems():
    h, y, fold = rows()
    targets = torch.stack([y, -2 * y + 1])
    together = Moments.like(h, targets, FOLDS).add(h, targets, fold)
    for layer in range(LAYERS):
        same(Moments.like(h[layer : layer + 1], targets[layer], FOLDS).add(h[layer : layer + 1], targets[layer], fold),
             together.at(layer))  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, y, f: (h[:, :, :-1], y, f), "cannot take"),
        (lambda h, y, f: (h[:1], y, f), "cannot take"),
        (lambda h, y, f: (h, y[:-1], f), "cannot take"),
        (lambda h, y, f: (h, y, f[:-1]), "needs a fold"),
        (lambda h, y, f: (h, y, f + 1), "needs a fold"),
        (lambda h, y, f: (h, y, f - 1), "needs a fold"),
        (lambda h, y, f: (torch.where(h == h[0, 0, 0], torch.nan, h), y, f), "NaN"),
        (lambda h, y, f: (h, torch.where(y == y[0], torch.inf, y), f), "NaN"),
    ],
)
def test_wrong_rows_are_refused_and_leave_no_trace(change, message):
    h, y, fold = rows()
    moments = Moments.like(h, y, FOLDS)
    with pytest.raises(ValueError, match=message):
        moments.add(*change(h, y, fold))
    assert all((x == 0).all() for x in moments.sums)


def test_too_little_to_fit_is_refused():
    h, y, _ = rows()
    with pytest.raises(ValueError, match="at least 2 folds"):
        Moments.like(h, y).add(h, y).training()
    with pytest.raises(ValueError, match="at least 2 rows"):
        NormalEquations.of(Moments.like(h, y, 2).add(h, y))
