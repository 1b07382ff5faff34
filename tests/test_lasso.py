"""Lasso: every solution is optimal by a certificate that is computed from the rows, and both solvers agree."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, lasso_path
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lightning_steer.probes import coordinate_descent, semismooth_newton
from lightning_steer.probes.duality import objective, relative_gap
from lightning_steer.probes.lasso import lasso
from lightning_steer.probes.moments import Moments
from lightning_steer.probes.normal_equations import NormalEquations

ALPHAS = [0.5, 0.25, 0.1, 0.05, 0.01, 0.005]
SOLVERS = {"coordinate_descent": coordinate_descent.solve, "semismooth_newton": semismooth_newton.solve}
solvers = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())


def residual_stream(n, d, seed=0, decay=1.4, outliers=3):
    """Correlated features (variances along random axes fall as k^-decay), some of them a thousand times larger."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.standard_normal((d, d)))
    x = rng.standard_normal((n, d)) * (1 + np.arange(d)) ** (-decay / 2) @ axes.T * np.sqrt(d)
    signal = x @ (rng.standard_normal(d) * (np.arange(d) % 5 == 0))
    y = 2 * signal / signal.std() + rng.standard_normal(n) - 1
    scale = np.exp(0.3 * rng.standard_normal(d))
    scale[rng.choice(d, outliers, replace=False)] *= 1000
    return (x + rng.standard_normal(d)) * scale, y


def independent(n=200, d=40):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, d))
    return x, x[:, :5].sum(1) + rng.standard_normal(n)


def duplicates():
    x, y = residual_stream(150, 30)
    return np.concatenate([x, x, 2 * x[:, :10], -x[:, :5]], 1), y


def collinear():
    x, y = residual_stream(150, 30)
    return np.concatenate([x, x[:, :15] + x[:, 15:], x @ np.ones((30, 1))], 1), y


def constants():
    x, y = residual_stream(200, 40)
    x[:, [0, 7, 39]] = [0.0, 1e5, 0.1]
    return x, y


def noiseless():
    x, _ = residual_stream(200, 40)
    return x, x[:, 0] / x[:, 0].std() - x[:, 1] / x[:, 1].std()


def constant_target():
    return independent()[0], np.full(200, 3.0)


PROBLEMS = {
    "independent": independent,
    "correlated with outliers": lambda: residual_stream(300, 60),
    "very correlated": lambda: residual_stream(300, 60, decay=3),
    "wide": lambda: residual_stream(60, 200),
    "few rows": lambda: residual_stream(3, 20),
    "one feature": lambda: residual_stream(50, 1, outliers=0),
    "duplicates": duplicates,
    "collinear": collinear,
    "constants": constants,
    "noiseless": noiseless,
    "constant target": constant_target,
}
problems = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())
units = pytest.mark.parametrize("standardise", [True, False], ids=["standardised", "raw units"])


def equations_of(x, y, standardise=True):
    h, y = torch.from_numpy(x), torch.from_numpy(y)
    return NormalEquations.of(Moments.like(h[:20], y[:20]).add(h, y), standardise)


def centred(x, y, standardise):
    x, y = x - x.mean(0), y - y.mean()
    spread = x.std(0)
    varies = spread > 1e-9 * (np.abs(x).max() + 1e-300)
    return np.where(varies, x / np.where(varies, spread, 1), 0) if standardise else np.where(varies, x, 0), y


def gap_from_rows(x, y, weight, intercept, alpha, standardise):
    """Independent of the package: explicit rows, residuals and dual point; weights in raw units."""
    u = weight * x.std(0) if standardise else weight
    residual = y - x @ weight - intercept
    design, target = centred(x, y, standardise)
    primal = residual @ residual / len(y) / 2 + alpha * np.abs(u).sum()
    dual = residual - residual.mean()
    dual = dual * min(1, alpha * len(y) / max(np.abs(design.T @ dual).max(), 1e-300))
    value = (target @ target - ((target - dual) ** 2).sum()) / len(y) / 2
    return (primal - value) / max(primal, 1e-300), primal


@solvers
@problems
@units
def test_the_gap_from_the_rows_is_met(problem, solver, standardise):
    x, y = problem()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = lasso(equations_of(x, y, standardise), ALPHAS, solver=solver)
    assert path.converged.all()
    for i, alpha in enumerate(ALPHAS):
        weight, intercept = path.fit.weight[0, i].numpy(), path.fit.intercept[0, i].item()
        gap, primal = gap_from_rows(x, y, weight, intercept, alpha, standardise)
        assert gap <= 1.1e-6  # rounding of rows that are a thousand deviations away
        assert path.objective[0, i].item() == pytest.approx(primal, rel=1e-8, abs=1e-12)
        assert path.gap[0, i].item() <= 1e-6


@solvers
@problems
def test_optimality_conditions(problem, solver):
    """Correlations with the residual: alpha sign(w) where w is not zero, at most alpha elsewhere."""
    x, y = problem()
    equations = equations_of(x, y)
    with warnings.catch_warnings():  # the last digits may be out of reach; then it says so
        warnings.simplefilter("ignore", ConvergenceWarning)
        path = lasso(equations, ALPHAS, tolerance=1e-11, solver=solver, rounds=60)
    assert (path.gap < 1e-9).all()
    design, _ = centred(x, y, True)
    for i, alpha in enumerate(ALPHAS):
        w = path.fit.weight[0, i].numpy()
        descent = design.T @ (y - x @ w - path.fit.intercept[0, i].item()) / len(y)
        # |X(w - w*)|^2/2n <= P(w) - P*, so no correlation is further off than the root of twice that
        off = np.sqrt(2e-9 * path.objective[0, i].item()) + 1e-9
        assert (np.abs(descent) <= alpha + off).all()
        assert alpha * np.abs(w * x.std(0)).sum() - descent @ (w * x.std(0)) <= 2e-9 * path.objective[0, i] + 1e-12
        large = np.abs(w * x.std(0)) > 1e-3
        assert (np.abs(descent - alpha * np.sign(w))[large] <= 1e-3 * alpha + off).all()


@problems
@units
def test_both_solvers_find_the_same_fit(problem, standardise):
    x, y = problem()
    equations = equations_of(x, y, standardise)
    first, other = (lasso(equations, ALPHAS, solver=solver) for solver in SOLVERS.values())
    short = (
        1.1 * torch.maximum(first.gap, other.gap) * first.objective + 1e-14
    )  # how far either may be from the optimum
    assert ((first.objective - other.objective).abs() <= short).all()
    h = torch.from_numpy(x)
    apart = (first.fit.predict(h) - other.fit.predict(h)).square().mean(-1)
    assert (apart <= 8 * short).all()  # |X(w - w*)|^2/2n <= P(w) - P*, twice


@solvers
@pytest.mark.parametrize("name", ["independent", "correlated with outliers", "constants"])
def test_weights_are_scikit_learns_run_to_the_end(name, solver):
    x, y = PROBLEMS[name]()
    design, target = centred(x, y, True)
    _, reference, _ = lasso_path(design, target, alphas=ALPHAS, tol=1e-14, max_iter=1_000_000)
    path = lasso(equations_of(x, y), ALPHAS, tolerance=1e-10, solver=solver)
    weights = path.fit.weight[0].numpy() * x.std(0)
    np.testing.assert_allclose(weights, reference.T, atol=2e-5)


@solvers
@units
def test_predictions_are_those_of_a_pipeline_in_raw_units(solver, standardise):
    x, y = residual_stream(300, 60)
    new, _ = residual_stream(50, 60, seed=2)
    path = lasso(equations_of(x, y, standardise), ALPHAS, tolerance=1e-10, solver=solver)
    for i, alpha in enumerate(ALPHAS):
        reference = Lasso(alpha, tol=1e-14, max_iter=1_000_000)
        pipeline = make_pipeline(StandardScaler(), reference) if standardise else reference
        expected = pipeline.fit(x - x.mean(0), y).predict(new - x.mean(0))  # centred for its sake: its float64 Gram
        np.testing.assert_allclose(path.fit.predict(torch.from_numpy(new))[0, i].numpy(), expected, atol=1e-3)


@solvers
@units
def test_above_the_largest_correlation_nothing_is_used(solver, standardise):
    x, y = residual_stream(300, 60)
    equations = equations_of(x, y, standardise)
    largest = float(equations.cross.abs().max())
    path = lasso(equations, [2 * largest, 1.0001 * largest, 0.99 * largest], solver=solver)
    assert path.fit.silent[0].tolist() == [True, True, False]
    assert (path.fit.weight[0, :2] == 0).all()
    torch.testing.assert_close(path.fit.intercept[0, :2], torch.full((2,), y.mean()).double())
    assert path.converged.all()
    assert (path.fit.weight[0, 2] != 0).sum() >= 1


@solvers
def test_the_gap_bounds_how_far_any_weights_are_from_the_optimum(solver):
    x, y = residual_stream(100, 20)
    equations = equations_of(x, y)
    gram, cross, power = (e[0] for e in equations[:3])
    best = lasso(equations, [0.1], tolerance=1e-10, solver=solver)
    optimum, w_best = best.objective.item(), best.fit.weight[0, 0] / equations.inverse_scale[0]
    g = torch.Generator().manual_seed(0)
    for size in torch.logspace(-6, 2, 60):
        w = w_best + size * torch.randn(20, generator=g, dtype=torch.float64)
        descent = cross - gram @ w
        value = objective(w, descent, cross, power, 0.1).item()
        gap = relative_gap(w, descent, cross, power, 0.1).item()
        assert (value - optimum) / value <= gap + 1e-9
        assert gap <= 1 + 1e-12  # a sensible bound: the dual of nothing is zero


@solvers
def test_order_of_penalties_and_company_in_the_batch_do_not_matter(solver):
    problems = [residual_stream(300, 60, seed=s) for s in range(3)] + [constants()]
    x = [np.pad(x, ((0, 300 - len(x)), (0, 60 - x.shape[1])), mode="wrap") for x, _ in problems]
    y = [np.pad(y, (0, 300 - len(y)), mode="wrap") for _, y in problems]
    equations = equations_of(np.stack(x).reshape(2, 2, 300, 60).swapaxes(0, 0), np.stack(y).reshape(2, 2, 300))
    path = lasso(equations, ALPHAS, solver=solver)
    assert path.fit.weight.shape == (1, 2, 2, 6, 60)
    mixed = [ALPHAS[i] for i in (3, 0, 5, 1, 4, 2)]
    for k, (one_x, one_y) in enumerate(zip(x, y, strict=True)):
        alone = lasso(equations_of(one_x, one_y), mixed, solver=solver)
        together = path.objective[0].reshape(4, 6)[k, [3, 0, 5, 1, 4, 2]]
        torch.testing.assert_close(alone.objective[0], together, rtol=2e-6, atol=1e-12)


@solvers
def test_float32_grams_do_not_suffice(solver):
    """Why moments are float64: what is optimal for the rounded Gram is not for the rows."""
    x, y = residual_stream(200, 300)
    equations = equations_of(x, y)
    gram, cross, power = (e.float().double() for e in equations[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a rounded Gram may not even be one
        rounded = lasso(equations._replace(gram=gram, cross=cross, power=power), ALPHAS, solver=solver, rounds=100)
    gaps = [gap_from_rows(x, y, w, b, a, True)[0] for w, b, a in
            zip(rounded.fit.weight[0].numpy(), rounded.fit.intercept[0].numpy(), ALPHAS, strict=True)]  # fmt: skip
    assert max(gaps) > 1e-6
    with pytest.raises(TypeError, match="float64"):
        lasso(equations._replace(gram=equations.gram.float()), ALPHAS, solver=solver)


def test_an_unfinished_solution_says_so():
    x, y = residual_stream(300, 200, decay=2)
    for solver in SOLVERS.values():
        with pytest.warns(ConvergenceWarning, match=r"of 6 lasso fits stopped at a relative duality gap above 1e-06"):
            path = lasso(equations_of(x, y), ALPHAS, rounds=1, solver=solver)
        assert not path.converged.all()
        assert (path.converged == (path.gap <= 1e-6)).all()
        assert path.rounds.max() == 1


@pytest.mark.parametrize("alphas", [[], [0.1, 0.0], [-1.0], [float("nan")], [float("inf")]])
def test_wrong_penalties_are_refused(alphas):
    with pytest.raises(ValueError, match="penalties"):
        lasso(equations_of(*independent()), alphas)


def test_equations_that_are_not_finite_are_refused():
    equations = equations_of(*independent())
    equations.cross[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        lasso(equations, ALPHAS)


def test_the_processor_chooses_the_solver(monkeypatch):
    called = []
    solve = coordinate_descent.solve
    monkeypatch.setattr(coordinate_descent, "solve", lambda *a: called.append("cpu") or solve(*a))
    lasso(equations_of(*independent()), ALPHAS)
    assert called == ["cpu"]
    if torch.cuda.is_available():
        on_gpu = NormalEquations(*(e.cuda() for e in equations_of(*independent())))
        here, there = lasso(equations_of(*independent()), ALPHAS), lasso(on_gpu, ALPHAS)
        torch.testing.assert_close(here.objective, there.objective.cpu(), rtol=2e-6, atol=0)


@pytest.mark.slow
@solvers
@units
def test_at_the_width_of_a_language_model(solver, standardise):
    x, y = residual_stream(2100, 2048)
    path = lasso(equations_of(x, y, standardise), ALPHAS, solver=solver)
    for i, alpha in enumerate(ALPHAS):
        weight_and_intercept = path.fit.weight[0, i].numpy(), path.fit.intercept[0, i].item()
        assert gap_from_rows(x, y, *weight_and_intercept, alpha, standardise)[0] <= 1.1e-6
