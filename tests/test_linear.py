"""Dense predictors: what scikit-learn finds on the rows, read off moments; and the conditions that define each fit."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lightning_steer.probes.linear import ols, ridge
from lightning_steer.probes.logistic_regression import logistic
from lightning_steer.probes.moments import Moments
from lightning_steer.probes.normal_equations import Fit, NormalEquations

PENALTIES = [1e-3, 0.1, 10.0]


def rows(n=200, d=30, seed=0, outliers=2):
    """Correlated features with means and scales of their own, some a thousand times larger."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 3 * rng.standard_normal(d)
    x[:, rng.choice(d, outliers, replace=False)] *= 1000
    y = (x / x.std(0)) @ rng.standard_normal(d) + rng.standard_normal(n) - 2
    return x, y


def singular(kind):
    x, y = rows(25, 40) if kind == "wide" else rows()
    if kind == "duplicates":
        x = np.concatenate([x, x[:, :7], -3 * x[:, :2]], 1)
    if kind == "collinear":
        x = np.concatenate([x, x[:, :5] / x[:, :5].std(0) @ np.ones((5, 1))], 1)
    return x, y


def equations_of(x, y):
    h, y = torch.from_numpy(x), torch.from_numpy(y)
    return NormalEquations.of(Moments.like(h[..., :20, :], y[..., :20]).add(h, y))


def predictions(fit, x):
    return fit.predict(torch.from_numpy(x))[0].numpy()


@pytest.mark.parametrize("kind", ["regular", "wide", "duplicates", "collinear"])
def test_ols_is_scikit_learns_on_standardised_rows(kind):
    """Also where many weights fit equally well: then it is the shortest in standardised units, on new rows too."""
    x, y = singular(kind)
    new = x[:20] + x.std(0) * np.random.default_rng(1).standard_normal((20, x.shape[1]))
    pipeline = make_pipeline(StandardScaler(), LinearRegression()).fit(x, y)
    fit = ols(equations_of(x, y))
    np.testing.assert_allclose(predictions(fit, new)[0], pipeline.predict(new), rtol=0, atol=1e-6)
    np.testing.assert_allclose(fit.weight[0, 0].numpy() * x.std(0), pipeline[1].coef_, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["regular", "wide", "duplicates", "collinear"])
def test_ols_residuals_are_orthogonal_to_all_features(kind):
    x, y = singular(kind)
    residual = y - predictions(ols(equations_of(x, y)), x)[0]
    assert abs(residual.mean()) < 1e-8
    assert np.abs((x - x.mean(0)).T @ residual / x.std(0)).max() / len(y) < 1e-8


@pytest.mark.parametrize("kind", ["regular", "wide", "duplicates"])
def test_ols_follows_any_change_of_units(kind):
    x, y = singular(kind)
    rng = np.random.default_rng(2)
    scale, shift = np.exp(3 * rng.standard_normal(x.shape[1])), 50 * rng.standard_normal(x.shape[1])
    before, after = ols(equations_of(x, y)), ols(equations_of(x * scale + shift, 4 * y + 7))
    np.testing.assert_allclose(
        after.weight[0, 0].numpy() * scale, 4 * before.weight[0, 0].numpy(), rtol=1e-5, atol=1e-8
    )
    np.testing.assert_allclose(predictions(after, x * scale + shift), 4 * predictions(before, x) + 7, atol=1e-5)


@pytest.mark.parametrize("kind", ["regular", "wide", "duplicates"])
def test_ridge_is_a_pipeline_of_scikit_learn(kind):
    x, y = singular(kind)
    new = x[:20] + x.std(0) * np.random.default_rng(1).standard_normal((20, x.shape[1]))
    fit = ridge(equations_of(x, y), PENALTIES)
    for i, penalty in enumerate(PENALTIES):
        pipeline = make_pipeline(StandardScaler(), Ridge(alpha=penalty * len(y))).fit(x, y)
        np.testing.assert_allclose(predictions(fit, new)[i], pipeline.predict(new), rtol=0, atol=1e-7)


def test_ridge_lies_between_ols_and_the_mean():
    x, y = rows()
    equations = equations_of(x, y)
    fit = ridge(equations, [1e-9, 1e9])
    np.testing.assert_allclose(predictions(fit, x)[0], predictions(ols(equations), x)[0], atol=1e-5)
    np.testing.assert_allclose(predictions(fit, x)[1], y.mean(), atol=1e-5)


@pytest.mark.parametrize("fit", [ols, lambda e: ridge(e, PENALTIES)])
def test_problems_side_by_side_are_problems_one_by_one(fit):
    problems = [rows(seed=s) for s in range(4)]
    x, y = (np.stack(part).reshape(2, 2, *part[0].shape) for part in zip(*problems, strict=True))
    together = fit(equations_of(x, y))
    for k, (one_x, one_y) in enumerate(problems):
        alone = fit(equations_of(one_x, one_y))
        torch.testing.assert_close(together.weight[0].flatten(0, 1)[k], alone.weight[0], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(together.intercept[0].flatten(0, 1)[k], alone.intercept[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_logistic_meets_its_optimality_conditions(sparse):
    x, y = rows(seed=3)
    correct = y > np.quantile(y, 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no deprecated argument, converged
        fit = logistic(torch.from_numpy(x), torch.from_numpy(correct), PENALTIES[:2], sparse)
    for i, penalty in enumerate(PENALTIES[:2]):
        miss = 1 / (1 + np.exp(-fit.predict(torch.from_numpy(x))[i].numpy())) - correct
        u = fit.weight[i].numpy() * x.std(0)
        pull = -((x - x.mean(0)) / x.std(0)).T @ miss / len(y)  # the loss's fall per unit of u
        assert abs(miss.mean()) < 2e-4  # the intercept is free
        if sparse:
            assert np.abs(pull).max() <= penalty * 1.01
            np.testing.assert_allclose(pull[u != 0], penalty * np.sign(u[u != 0]), atol=0.01 * penalty)
            assert 0 < (u != 0).sum() < len(u)
        else:
            np.testing.assert_allclose(pull, penalty * u, atol=0.01 * penalty)


def test_logistic_is_a_pipeline_of_scikit_learn():
    x, y = rows()
    correct = y > 0
    new = rows(seed=5)[0]
    fit = logistic(torch.from_numpy(x), torch.from_numpy(correct), [0.01])
    model = LogisticRegression(C=100 / len(y), tol=1e-10, max_iter=10_000)
    expected = make_pipeline(StandardScaler(), model).fit(x, correct).decision_function(new)
    np.testing.assert_allclose(fit.predict(torch.from_numpy(new))[0].numpy(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("fit", [ols, lambda e: ridge(e, PENALTIES)])
def test_a_constant_feature_or_target_gets_no_weight(fit):
    x, y = rows()
    x[:, 4] = 1e5
    assert (fit(equations_of(x, y)).weight[..., 4] == 0).all()
    assert (fit(equations_of(x, y)).weight[..., 5] != 0).all()
    flat = fit(equations_of(x, np.full(len(y), -3.0)))
    assert flat.silent.all()
    assert (flat.intercept == -3).all()


def test_a_constant_feature_gets_no_logistic_weight():
    x, y = rows()
    x[:, 4] = 1e5 + 0.1
    for sparse in (False, True):
        fit = logistic(torch.from_numpy(x), torch.from_numpy(y > 0), [0.01], sparse)
        assert (fit.weight[:, 4] == 0).all()
        assert fit.weight.isfinite().all()


def test_a_silent_fit_predicts_one_number_and_is_flagged():
    fit = Fit(torch.zeros(2, 3, 5).double(), torch.ones(2, 3).double())
    fit.weight[1, 2, 4] = -1e-30
    assert fit.silent.tolist() == [[True, True, True], [True, True, False]]
    assert (fit.predict(torch.randn(7, 5))[0] == 1).all()
    x, y = rows()
    above = logistic(torch.from_numpy(x), torch.from_numpy(y > 0), [10.0, 1e-3], sparse=True)
    assert above.silent.tolist() == [True, False]


@pytest.mark.parametrize("wrong", [[], [0.0], [-1.0, 1.0]])
def test_wrong_penalties_are_refused(wrong):
    x, y = rows()
    with pytest.raises(ValueError, match="ridge penalties must be positive"):
        ridge(equations_of(x, y), wrong)
    with pytest.raises(ValueError, match="logistic penalties must be positive"):
        logistic(torch.from_numpy(x), torch.from_numpy(y > 0), wrong)


def test_logistic_without_two_classes_or_with_nan_is_refused():
    x, y = rows()
    with pytest.raises(ValueError, match="right and wrong rows, not 200 of 200"):
        logistic(torch.from_numpy(x), torch.ones(200, dtype=torch.bool), [1.0])
    x[3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        logistic(torch.from_numpy(x), torch.from_numpy(y > 0), [1.0])


def test_logistic_says_when_it_stopped_early(monkeypatch):
    monkeypatch.setattr("lightning_steer.probes.logistic_solver.STEPS", 2)
    x, y = rows()
    with pytest.warns(ConvergenceWarning):
        logistic(torch.from_numpy(x), torch.from_numpy(y > 0), [1e-4])


def test_an_eigensolver_that_gives_up_is_replaced(monkeypatch):
    """LAPACK's fastest one does on some Gram matrices of which most features are constant."""

    def gives_up(_matrix):
        raise torch.linalg.LinAlgError("failed to converge")

    equations = equations_of(*rows())
    expected = ols(equations), ridge(equations, PENALTIES)
    monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    for fit_of, fit in zip((ols(equations), ridge(equations, PENALTIES)), expected, strict=True):
        torch.testing.assert_close(fit_of.weight, fit.weight, rtol=1e-8, atol=1e-10)
