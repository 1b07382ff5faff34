"""Intervals against independent references: other libraries, explicit loops, published numbers, brute force."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq, minimize_scalar

from lightning_steer.statistics import intervals
from lightning_steer.statistics.answer_table import AnswerTable
from lightning_steer.statistics.columns import Clusters, as_clusters
from lightning_steer.statistics.jackknife import jackknife, leave_one_out
from lightning_steer.statistics.kinds import Change, Fixed, Mean, Quantile, Share, Smooth
from lightning_steer.statistics.random_control import RandomControl
from lightning_steer.statistics.resampling import bootstrap_weights
from lightning_steer.studies.coverage import designs


def in_clusters(cluster) -> Clusters:
    clusters = as_clusters(cluster, len(cluster))
    assert clusters is not None
    return clusters


@pytest.mark.parametrize("n", [1, 12, 40, 250])
def test_an_exact_share_is_scipys(n) -> None:
    for successes in {0, 1, n // 3, n - 1, n}:
        rows = np.arange(n) < successes
        estimate = Share().estimate(rows.astype(float))[0]
        expected = stats.binomtest(successes, n).proportion_ci(0.95, "exact")
        assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))
        assert (estimate.n, estimate.clusters) == (n, None)


def test_korn_graubard_by_hand() -> None:
    sizes = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    right = [1, 1, 3, 2, 5, 3, 6, 1, 7, 4, 9, 5]
    rows = np.concatenate([np.arange(m) < r for m, r in zip(sizes, right, strict=True)]).astype(float)
    n, p, count = sum(sizes), sum(right) / sum(sizes), len(sizes)
    variance = sum((r - m * p) ** 2 / (1 - m / n) for m, r in zip(sizes, right, strict=True)) / n**2
    m = np.array(sizes, dtype=float)
    residual = (np.eye(count) - np.outer(m, np.ones(count)) / n) / np.sqrt(1 - m / n)[:, None]
    degrees = []
    for of_sum in (m, m**2):  # variance of a cluster's sum: rows independent, rows all alike
        eigenvalues = np.linalg.eigvalsh(residual @ np.diag(of_sum) @ residual.T)
        degrees.append(eigenvalues.sum() ** 2 / np.square(eigenvalues).sum())
    free = (stats.t.ppf(0.975, n - 1) / stats.t.ppf(0.975, min(degrees))) ** 2
    worth = p * (1 - p) / variance * free
    x = worth * p
    expected = stats.beta.ppf(0.025, x, worth - x + 1), stats.beta.ppf(0.975, x + 1, worth - x)
    estimate = Share().estimate(rows, np.repeat(np.arange(count), sizes))[0]
    assert (estimate.low, estimate.high) == pytest.approx(expected)
    assert (estimate.n, estimate.clusters) == (n, 12)


def test_few_clusters_with_the_rarer_outcome_count_once_each() -> None:
    rows, cluster = np.zeros(60), np.repeat(np.arange(12), 5)
    rows[:2] = 1
    estimate = Share().estimate(rows, cluster)[0]
    expected = stats.beta.ppf(0.975, 12 / 30 + 1, 12 - 12 / 30)
    assert estimate.high == pytest.approx(expected)
    assert Share().estimate(np.zeros(60), cluster)[0].high == pytest.approx(1 - 0.025 ** (1 / 12))


@pytest.mark.parametrize(
    ("gains", "harms", "n"), [(12, 2, 50), (3, 0, 60), (0, 0, 60), (1, 4, 30), (0, 5, 12), (9, 9, 40)]
)
def test_tango_is_the_inverted_score_test(gains, harms, n) -> None:
    def score(d: float) -> float:
        def surprise(q: float) -> float:
            cells = (gains, q + d), (harms, q), (n - gains - harms, 1 - 2 * q - d)
            return -sum(c * math.log(max(p, 1e-300)) for c, p in cells if c)

        span = (max(0, -d), (1 - d) / 2)
        q = minimize_scalar(surprise, bounds=span, method="bounded", options={"xatol": 1e-13}).x
        q = min([q, *span], key=surprise)
        return (gains - harms - n * d) / math.sqrt(n * (2 * q + d - d * d))

    z, middle = stats.norm.ppf(0.975), (gains - harms) / n
    expected = (
        brentq(lambda d: score(d) - z, -1 + 1e-6, middle - 1e-9),
        brentq(lambda d: score(d) + z, middle + 1e-9, 1 - 1e-6),
    )
    low, high = intervals.tango([gains], [harms], n)
    assert (low[0], high[0]) == pytest.approx(expected, abs=1e-4)


def test_a_change_never_has_no_width() -> None:
    cluster = np.repeat(np.arange(12), 5)
    for rows in (np.zeros(60), np.ones(60), -np.ones(60)):
        for cluster_column in (None, cluster):
            estimate = Change().estimate(rows, cluster_column)[0]
            assert estimate.high - estimate.low > 0.05, (rows[0], estimate)
            assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1


def moved_out(ends, values, error: float, free: float):
    """The end on the side of the skew of ``values [T]``, moved out (Johnson 1978)."""
    lean = error * stats.skew(values) * (1 + 2 * stats.t.ppf(0.975, free) ** 2) / (6 * math.sqrt(len(values)))
    return ends[0] + min(lean, 0), ends[1] + max(lean, 0)


def test_equal_clusters_give_students_interval_of_their_means() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 3))
    means = rows.reshape(60, 5, 3).mean(1)
    cluster, error = np.repeat(np.arange(60), 5), stats.sem(means)
    low, high = stats.t.interval(0.95, 59, means.mean(0), error)
    smooth = Smooth(lambda w, x: w @ x / w.sum(1, keepdims=True)).estimate(rows, cluster=cluster)
    for c, (estimate, other) in enumerate(zip(smooth, Mean().estimate(rows, cluster), strict=True)):
        assert (estimate.low, estimate.high) == pytest.approx((low[c], high[c]))
        assert (other.low, other.high) == pytest.approx(moved_out((low[c], high[c]), means[:, c], error[c], 59))


def test_cr2_by_matrices() -> None:
    """Bell & McCaffrey 2002 with explicit hat matrices, working independence and working equality within clusters."""
    sizes = np.array([2, 9, 4, 17, 5])
    cluster, n = np.repeat(np.arange(5), sizes), sizes.sum()
    rows = np.random.default_rng(1).normal(size=n)
    hat, variance, spreads = np.full((n, n), 1 / n), 0.0, []
    for j in range(5):
        own = cluster == j
        values, vectors = np.linalg.eigh((np.eye(n) - hat)[np.ix_(own, own)])
        root = vectors @ np.diag(values**-0.5) @ vectors.T
        row = np.ones(own.sum()) / n @ root @ (np.eye(n) - hat)[own]
        variance += (row @ rows) ** 2
        spreads.append(row)
    free = []
    for working in (np.eye(n), (cluster[:, None] == cluster).astype(float)):
        spread = np.array(spreads) @ working @ np.array(spreads).T
        free.append(np.trace(spread) ** 2 / np.square(spread).sum())
    expected = stats.t.interval(0.95, min(free), rows.mean(), math.sqrt(variance))
    sums = [(rows[cluster == j] - rows.mean()).sum() for j in range(5)]
    spread = math.sqrt(np.square(sums).mean())
    lean = math.sqrt(variance) * np.power(sums, 3).mean() / spread**3
    lean *= (1 + 2 * stats.t.ppf(0.975, min(free)) ** 2) / (6 * math.sqrt(5))
    expected = expected[0] + min(lean, 0), expected[1] + max(lean, 0)
    assert np.ravel(intervals.cluster_t(rows[:, None], in_clusters(cluster))) == pytest.approx(expected)


def test_the_jackknife_is_a_loop_over_clusters() -> None:
    random, cluster = np.random.default_rng(2), np.array([3, 3, 7, 7, 7, 1, 9, 9])
    x, y = random.random((2, 8))
    left_out = [y[cluster != c].sum() / x[cluster != c].sum() for c in (1, 3, 7, 9)]
    error = math.sqrt(3 / 4 * sum((value - np.mean(left_out)) ** 2 for value in left_out))
    reach = stats.t.ppf(0.975, 3) * error
    estimate = Smooth(lambda w, a, b: (w @ b) / (w @ a)).estimate(x, y, cluster=cluster)[0]
    value = y.sum() / x.sum()
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value, value - reach, value + reach))
    assert leave_one_out(cluster).sum() == 8 * 3
    assert np.isnan(jackknife(np.ones(1), np.ones((1, 1)))[1]).all()


def test_a_high_quantile_of_few_rows_has_no_upper_end() -> None:
    rows = np.arange(60.0)
    high = Quantile(0.95).estimate(rows)[0]
    assert (high.value, high.high) == (56, math.inf)
    assert high.how.endswith("no upper end")
    middle = Quantile(0.5).estimate(rows)[0]
    assert stats.binom.cdf(int(middle.high) - 1, 60, 0.5) - stats.binom.cdf(int(middle.low), 60, 0.5) >= 0.93
    assert "no" not in middle.how


def test_units_without_others_give_no_interval() -> None:
    cluster = np.zeros(20)
    for kind in (Share(), Mean(0, 1), Change(), Quantile(0.5), Smooth(lambda w, x: w @ x / w.sum(1, keepdims=True))):
        estimate = kind.estimate(np.ones(20), cluster=cluster)[0]
        assert math.isnan(estimate.low)
        assert math.isnan(estimate.high)
        assert estimate.how.startswith("none: ")
    assert intervals.mean_over_units([3.0]).how == "none: 1 independent unit"


def test_few_units_have_a_range_and_many_an_interval() -> None:
    values = np.random.default_rng(3).normal(size=(50, 4))
    means = values.mean(1)
    few, many = (intervals.mean_over_units(values[:n]) for n in (19, 50))
    assert (few.low, few.high) == (means[:19].min(), means[:19].max())
    assert few.how.startswith("not an interval: ")
    assert str(few) == f"{few.value:.3f} ({few.low:.3f} to {few.high:.3f})"
    ends, error = stats.t.interval(0.95, 49, means.mean(), stats.sem(means)), stats.sem(means)
    assert many[1:3] == pytest.approx(moved_out(ends, means, error, 49))
    assert str(many) == f"{many.value:.3f} [{many.low:.3f}, {many.high:.3f}]"
    assert str(intervals.mean_over_units([0.5, 0.5])) == "0.500"


def test_no_range_of_units_ends_beyond_what_is_possible() -> None:
    """Student's interval of such networks reached .999 + .003."""
    range_found = intervals.mean_over_units([0.9999, 0.999, 0.9985, 0.9999, 0.991])
    assert range_found.high <= 1


@pytest.mark.parametrize("n", [2, 9])
def test_few_rows_of_what_nothing_bounds_have_no_interval(n: int) -> None:
    rows = np.random.default_rng(0).exponential(size=(50, 3))
    few, many = Mean().estimate(rows[:n])[0], Mean().estimate(rows)[0]
    assert math.isnan(few.low)
    assert few.how.startswith("none: nothing bounds a row")
    assert many.low < many.value < many.high
    cluster = np.repeat(np.arange(n), 2)
    assert math.isnan(Mean().estimate(np.repeat(rows[:n], 2, 0), cluster)[0].low)
    assert math.isfinite(Mean(0, 1).estimate(rows[:n] / rows.max())[0].low)


def test_singletons_are_independent_rows() -> None:
    rows = (np.arange(30) % 3 == 0).astype(float)
    assert Share().estimate(rows, np.arange(30)) == Share().estimate(rows)


@pytest.mark.parametrize(
    ("kind", "value"), [(Share(), 0.5), (Share(), -1), (Change(), 0.5), (Mean(0, 1), 1.5), (Mean(-1, 1), -1.5)]
)
def test_values_that_a_kind_cannot_have_are_refused(kind, value) -> None:
    with pytest.raises(ValueError, match=f"{value:g}"):
        kind.estimate([0.0, 1.0, value])


def test_a_value_that_is_not_finite_gets_no_interval_and_harms_no_other() -> None:
    rows = np.tile([[0.0, 0.0], [1.0, math.inf], [1.0, 2.0]], (20, 1))
    good, bad = Mean().estimate(rows)
    assert good == Mean().estimate(rows[:, 0])[0]
    assert bad.value == math.inf
    assert bad.how == "none: a value is not finite"


def test_what_is_known_by_definition_has_no_interval() -> None:
    estimate = Fixed(1.0).estimate(np.zeros((7, 1)))[0]
    assert estimate[0] == 1
    assert math.isnan(estimate.low)
    assert (estimate.n, estimate.how) == (7, "by definition")


def test_random_draws_are_ranked() -> None:
    draws = np.arange(20.0)
    ranked = RandomControl(higher_is_better=True).estimate(draws, 18.0)[0]
    assert ranked == (0, 9.5, 19, 20, 3 / 21)
    assert RandomControl(higher_is_better=True).estimate(draws, 99.0)[0].p == 1 / 21


def test_a_low_error_is_ranked_as_good_and_what_has_no_direction_is_not_ranked() -> None:
    draws = np.arange(20.0)
    assert RandomControl(higher_is_better=False).estimate(draws, 1.0)[0].p == 3 / 21
    assert RandomControl(higher_is_better=False).estimate(draws, 99.0)[0].p == 1
    assert math.isnan(RandomControl(higher_is_better=None).estimate(draws, 1.0)[0].p)


def test_answers_beside_explicit_tables() -> None:
    random = np.random.default_rng(4)
    truth, before, after = random.integers(0, 3, (3, 90))
    estimates = AnswerTable(3).estimate(truth, before, after)
    for suffix, answer in (("_base", before), ("", after)):
        matrix = np.zeros((3, 3))
        for t, a in zip(truth, answer, strict=True):
            matrix[t, a] += 1
        recall = np.diag(matrix) / matrix.sum(1)
        assert estimates[f"balanced_accuracy{suffix}"][0].value == pytest.approx(recall.mean())
        one_hot = np.eye(3)[truth] - np.eye(3)[truth].mean(0), np.eye(3)[answer] - np.eye(3)[answer].mean(0)
        spread = math.sqrt((one_hot[0] ** 2).sum() * (one_hot[1] ** 2).sum())
        assert estimates[f"mcc{suffix}"][0].value == pytest.approx((one_hot[0] * one_hot[1]).sum() / spread)
    for name, (estimate,) in estimates.items():
        assert estimate.low < estimate.value < estimate.high, name
    clustered = AnswerTable(3).estimate(truth, before, after, np.repeat(np.arange(18), 5))
    assert clustered["mcc"][0].how.startswith("none: ")
    assert clustered["accuracy"][0].clusters == 18


def test_rows_of_a_cluster_are_drawn_together() -> None:
    weights = bootstrap_weights(6, 100, cluster=[5, 5, 2, 2, 2, 9])
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, [0, 2, 5]].sum(1) == 3).all()


def test_statistics_load_without_torch() -> None:
    code = "import sys, lightning_steer.statistics.kinds, lightning_steer.statistics.certificates as c;"
    subprocess.run([sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], check=True)


def test_a_side_that_no_cluster_shows_widens_nothing_where_most_clusters_differ() -> None:
    """Twenty-four clusters fall by .05 each: that none rises is no reason for an interval up to .1."""
    random = np.random.default_rng(0)
    cluster = np.repeat(np.arange(24), 6)
    rows = -0.05 + 0.01 * random.standard_normal(24)[cluster] + 0.01 * random.standard_normal(144)
    all_fall = Mean(-1, 1, steady=True).estimate(rows, cluster)[0]
    assert -0.06 < all_fall.low < all_fall.high < -0.04
    jumps = Mean(-1, 1).estimate(rows, cluster)[0]  # unless an answer that flips may take a row far away
    assert jumps.low < -0.1 < 0 < jumps.high
    five_fall = Mean(-1, 1, steady=True).estimate(np.where(cluster < 5, rows, 0.0), cluster)[0]
    assert five_fall.low < five_fall.value < 0 < five_fall.high  # of few clusters the unseen side may be as large


@pytest.mark.parametrize(("n", "wrong"), [(60, 0.01), (60, 0.02), (100, 0.02)])
def test_wrong_answers_that_no_row_shows_may_be_there(n: int, wrong: float) -> None:
    """Errors of right answers are near 0 but never 0: an exact 0 as the sign of a rare event was blind to them."""
    random, sets = np.random.default_rng(4), 500
    columns = designs.errors(random, wrong, 0.0, np.arange(n), sets)
    true = designs.mean_error(wrong)
    held = [e.low <= true <= e.high for e in Mean(0, 1).estimate(columns)]
    assert np.mean(held) > 0.93


def test_what_never_varies_but_for_rounding_has_no_interval_of_no_width() -> None:
    cluster = np.repeat(np.arange(24), np.arange(24) % 7 + 2)
    constant = np.full(len(cluster), 0.1)
    assert math.isnan(Mean().estimate(constant, cluster)[0].low)
    share = Smooth(lambda weights, x: 100 * (weights @ x) / weights.sum(1, keepdims=True), 0, 100)
    perfect = share.estimate(np.ones(len(cluster)), cluster=cluster)[0]
    assert perfect.low < 95
    assert perfect.high == pytest.approx(100)


def test_what_cannot_be_compared_has_no_rank() -> None:
    control = RandomControl(higher_is_better=True)
    assert math.isnan(control.estimate(np.arange(20.0), math.nan)[0].p)
    assert math.isnan(control.estimate(np.append(np.arange(19.0), math.nan), 5.0)[0].p)


@pytest.mark.parametrize("kind", [Change(), Mean(-1, 1), Mean(-1, 1, steady=True)])
def test_clusters_that_happen_to_agree_leave_a_width(kind: Change | Mean) -> None:
    changes, cluster = np.tile([1.0] + [0.0] * 9, 10), np.repeat(np.arange(10), 10)
    (estimate,) = kind.estimate(changes, cluster)
    assert estimate.value == pytest.approx(0.1)
    assert estimate.low < 0.05  # ten independent gains of 100 leave .05 to .18
    assert estimate.high > 0.15
    (constant,) = kind.estimate(np.zeros(100), cluster)
    assert constant.low < 0 < constant.high or kind == Mean(-1, 1, steady=True)
