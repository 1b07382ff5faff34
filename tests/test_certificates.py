"""Certificates of graded and clustered changes: what is refused, and which bound is taken."""

import numpy as np
import pytest
from scipy.stats import beta

from lightning_steer.statistics.bounds import Betting, Hoeffding
from lightning_steer.statistics.certificates import certify


def test_harm_that_is_truthy_is_not_certified() -> None:
    """Fidelity of -1 was read as True, and harm was certified as improvement by more than .194."""
    changes = np.zeros((1, 250))
    changes[0, :60] = -1.0
    result = certify(changes, -1, 1, delta=0.05)
    assert result.chosen is None
    assert result.estimate[0] == pytest.approx(-0.24)


@pytest.mark.parametrize(
    ("changes", "low", "high", "message"),
    [
        ([[0.0, 1.5]], -1, 1, "1.5"),
        ([[0.0, np.nan]], -1, 1, "NaN"),
        ([[0.0, 1.0]], -np.inf, np.inf, "finite and declared"),
        ([[0.0, 1.0]], 1, 1, "low below high"),
        ([[True, False]], -1, 1, "booleans"),
        ([0.0, 1.0], -1, 1, "shape"),
    ],
)
def test_undeclared_values_are_refused(changes, low, high, message) -> None:
    with pytest.raises(ValueError, match=message):
        certify(np.array(changes), low, high)


def test_counting_bounds_refuse_graded_changes_and_clusters() -> None:
    for changes, cluster in ((np.full((1, 20), 0.5), None), (np.ones((1, 20), int), np.arange(20) // 2)):
        with pytest.raises(ValueError, match="Hoeffding counts"):
            certify(changes, -1, 1, cluster, bound=Hoeffding())


def test_betting_on_a_range_is_betting_on_counts_where_both_apply() -> None:
    changes = np.random.default_rng(0).choice([-1, 0, 1], (5, 80), p=[0.05, 0.6, 0.35])
    counted = certify(changes, -1, 1, bound=Betting())
    graded = certify(changes.astype(float), -1, 1)
    np.testing.assert_allclose(graded.lower, counted.lower, atol=1e-9)
    wider = certify(2 * changes.astype(float) + 1, -1, 3, epsilon=1.0)
    np.testing.assert_allclose(wider.lower, 2 * graded.lower + 1, atol=1e-9)


def test_a_cluster_counts_once_and_too_few_say_how_many_would_do() -> None:
    random = np.random.default_rng(1)
    means = random.choice([0.0, 0.5], 20, p=[0.3, 0.7])
    rows = np.repeat(means, 10)[None]
    result = certify(rows, -1, 1, np.repeat(np.arange(20), 10), delta=0.001)
    alone = certify(means[None], -1, 1, delta=0.001)
    np.testing.assert_allclose(result.lower, alone.lower)
    assert result.chosen is None
    needed = int(result.reason.split("some ")[1].split()[0])
    assert needed > 20
    copies = -(-needed // 20)
    assert certify(np.tile(means, 2 * copies)[None], -1, 1, delta=0.001).chosen == 0
    assert certify(np.tile(means, copies // 2)[None], -1, 1, delta=0.001).chosen is None


def test_betting_keeps_its_promise() -> None:
    """A rare large gain and frequent small harms, mean 0, where a test of symmetry certifies far too often."""
    random, delta, sets = np.random.default_rng(2), 0.05, 4000
    values = np.where(random.random((sets, 60)) < 0.1, 0.9, -0.1)
    false = int(Betting().refutes(values, 0.0, delta).sum())
    assert beta.ppf(0.001, max(false, 1), sets - false + 1) <= delta
    better = int(Betting().refutes(values + 0.1, 0.0, delta).sum())
    assert better > sets / 2


def strengths_of_a_study(sets: int, effect: float) -> np.ndarray:
    """``[sets, 5, 200]`` graded changes in 40 clusters of 5 rows, alike in part; the fourth strength has the effect."""
    random = np.random.default_rng(3)
    shared = random.normal(size=(sets, 5, 40, 1)) + random.normal(size=(sets, 5, 40, 5))
    changes = np.clip(0.3 * shared, -1, 1)
    changes[:, 3] = np.clip(changes[:, 3] + effect, -1, 1)
    return changes.reshape(sets, 5, 200)


def test_what_really_improves_in_clusters_is_certified_and_nothing_else() -> None:
    cluster, delta, sets = np.repeat(np.arange(40), 5), 0.05, 300
    better = [certify(changes, -1, 1, cluster, delta).chosen for changes in strengths_of_a_study(sets, 0.4)]
    assert better.count(3) > 0.9 * sets
    assert len(better) - better.count(3) - better.count(None) <= 2 * delta * sets
    nothing = [certify(changes, -1, 1, cluster, delta).chosen for changes in strengths_of_a_study(sets, 0.0)]
    false = sets - nothing.count(None)
    assert beta.ppf(0.001, max(false, 1), sets - false + 1) <= delta
