"""Power of every design against simulated sets that are judged as reports judge them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binomtest

from lightning_steer.statistics import intervals, power
from lightning_steer.statistics.bounds import Betting, Bound, Hoeffding
from lightning_steer.statistics.certificate_power import EXACT, CertificateDesign, betting_power
from lightning_steer.statistics.certificates import certify
from lightning_steer.statistics.columns import Clusters
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.intervals import cluster_t
from lightning_steer.statistics.kinds import Change, Mean, Share

QUICK, WHOLE = 500, 4000


def agrees(found: int, sets: int, predicted: float, slack: float = 0.0) -> bool:
    """Whether the 99.9 % interval of a simulated share reaches the predicted one."""
    ends = binomtest(found, sets).proportion_ci(0.999)
    return ends.low - slack <= predicted <= ends.high + slack


def changes(effect: float, discordant: float, n: int, sets: int, seed: int) -> np.ndarray:
    gain, harm = power.fixed_and_broken(effect, discordant)
    return np.random.default_rng(seed).choice([1, -1, 0], size=(n, sets), p=[gain, harm, 1 - gain - harm])


def share_sets(design: power.ShareDesign, effect: float, sets: int) -> int:
    rows = np.random.default_rng(1).uniform(size=(design.n, sets)) < design.null + effect
    return sum(e.low > design.null or e.high < design.null for e in Share().estimate(rows.astype(float)))


def paired_sets(design: power.PairedDesign, effect: float, sets: int) -> int:
    rows = changes(effect, design.discordant, design.n, sets, 2)
    return sum(e.low > 0 or e.high < 0 for e in Change().estimate(rows.astype(float)))


def clustered_sets(design: power.ClusteredDesign, effect: float, sets: int) -> int:
    random, of_row = np.random.default_rng(3), np.repeat(np.arange(design.units), design.sizes)
    shared = random.standard_normal((design.units, sets))[of_row] * math.sqrt(design.icc)
    own = random.standard_normal((len(of_row), sets)) * math.sqrt(1 - design.icc)
    low, high = cluster_t(effect + design.sd * (shared + own), Clusters(of_row, np.asarray(design.sizes, dtype=float)))
    return int(((low > 0) | (high < 0)).sum())


def certificate_sets(design: CertificateDesign, effect: float, sets: int) -> int:
    rows = changes(effect, design.discordant, design.n, sets, 4).T
    gains, harms = ((rows == sign).sum(1) for sign in (1, -1))
    return int(design.bound.exceeds(gains, harms, design.n, design.delta / design.candidates, design.epsilon).sum())


CASES: list[tuple[power.Design, Callable, tuple[float, ...]]] = [
    (power.ShareDesign(40), share_sets, (0.0, 0.15, 0.23)),
    (power.ShareDesign(250, 0.1), share_sets, (0.0, 0.03, 0.06)),
    (power.PairedDesign(60, 0.1), paired_sets, (0.0, 0.05, 0.1, 0.2)),
    (power.PairedDesign(250, 0.2), paired_sets, (0.0, 0.05, 0.08)),
    (power.ClusteredDesign((6,) * 24, 0.3), clustered_sets, (0.0, 0.2, 0.3)),
    (power.ClusteredDesign((10,) * 10, 0.6, 2.0), clustered_sets, (0.0, 0.8, 1.7)),
    (CertificateDesign(60, 0.2), certificate_sets, (0.0, 0.2, 0.3)),
    (CertificateDesign(250, 0.2), certificate_sets, (0.0, 0.08, 0.12)),
    (CertificateDesign(250, 0.05, 1, 0.05, bound=Betting()), certificate_sets, (0.0, 0.03, 0.06)),
    (CertificateDesign(250, 0.6, 10, 0.05, -0.05, Hoeffding()), certificate_sets, (0.0, 0.15, 0.25)),
    (CertificateDesign(60, 0.2, 5, 0.05, 0.02), certificate_sets, (0.1, 0.2, 0.3)),
]


@pytest.mark.parametrize(("design", "simulated", "effects"), CASES, ids=lambda one: type(one).__name__)
def test_power_is_what_simulated_sets_have(design: power.Design, simulated: Callable, effects: tuple) -> None:
    slack = 0.02 if isinstance(design, power.ClusteredDesign) else 0.0  # its interval leans with the skew of the sample
    for effect in effects:
        assert agrees(simulated(design, effect, QUICK), QUICK, design.power(effect), slack), effect


@pytest.mark.slow
@pytest.mark.parametrize(("design", "simulated", "effects"), CASES, ids=lambda one: type(one).__name__)
def test_power_is_what_many_simulated_sets_have(design: power.Design, simulated: Callable, effects: tuple) -> None:
    slack = 0.02 if isinstance(design, power.ClusteredDesign) else 0.0
    for effect in (*effects, design.smallest_effect()):
        assert agrees(simulated(design, effect, WHOLE), WHOLE, design.power(effect), slack), effect


@pytest.mark.parametrize(("design", "simulated"), [case[:2] for case in CASES], ids=lambda one: type(one).__name__)
def test_the_smallest_effect_is_found_and_less_is_not(design: power.Design, simulated: Callable) -> None:
    smallest = design.smallest_effect()
    assert design.power(smallest) >= 0.8 > design.power(smallest - design.most / 2000)
    assert 0.72 < simulated(design, smallest, QUICK) / QUICK < 0.88
    assert design.smallest_effect(0.95) > smallest
    assert smallest > design.of(2 * design.units).smallest_effect()


@pytest.mark.parametrize(
    ("design", "effect"),
    [
        (power.ShareDesign(1), 0.2),
        (power.PairedDesign(1, 0.1), 0.05),
        (power.ClusteredDesign((10,), 0.1), 0.3),
        (CertificateDesign(1, 0.3, bound=Betting()), 0.3),
    ],
    ids=lambda one: type(one).__name__,
)
def test_rows_needed_are_the_fewest_that_do(design: power.Design, effect: float) -> None:
    rows = design.units_needed(effect)
    assert rows is not None
    assert min(design.of(n).power(effect) for n in range(rows, rows + power.RUN)) >= 0.8
    assert design.of(rows - 1).power(effect) < 0.8
    assert design.units_needed(effect, largest=rows // 2) is None


def test_no_effect_is_found_by_too_few_rows() -> None:
    assert CertificateDesign(5, 0.2).smallest_effect() == math.inf
    assert power.ClusteredDesign((30,), 0.3).power(1.0) == 0
    assert power.ShareDesign(3).smallest_effect() == math.inf


@pytest.mark.parametrize("bound", [EXACT, Betting()], ids=lambda one: type(one).__name__)
def test_counts_above_a_level_are_those_whose_bound_is_above_it(bound: Bound) -> None:
    gains, harms = (grid.ravel() for grid in np.indices((26, 26)))
    gains, harms = gains[gains + harms <= 25], harms[gains + harms <= 25]
    for delta, epsilon in ((0.05, 0.0), (0.01, 0.1), (0.2, -0.13), (0.05, 0.0307), (0.001, 0.9)):
        above = bound.at(gains, harms, 25, delta) > epsilon
        np.testing.assert_array_equal(bound.exceeds(gains, harms, 25, delta, epsilon), above)


@pytest.mark.parametrize("bound", [EXACT, Betting()], ids=lambda one: type(one).__name__)
def test_fewest_gains_are_those_that_a_certificate_takes(bound: Bound) -> None:
    design = CertificateDesign(60, 0.2, 4, 0.05, bound=bound)
    for harms in (0, 7, 29):
        fewest = int(design.fewest_gains(np.array([harms]))[0])
        for gains in {0, min(fewest - 1, 60 - harms), min(fewest, 60 - harms)}:
            row = np.repeat([1, -1, 0], [gains, harms, 60 - gains - harms])
            certified = certify(row[None], -1, 1, delta=0.05 / 4, bound=bound).chosen == 0
            assert certified == (gains >= fewest), (gains, harms)


@pytest.mark.parametrize(("n", "spread"), [(60, 0.3), (40, 0.25)])
def test_betting_power_of_cluster_means_is_that_of_certificates(n: int, spread: float) -> None:
    random = np.random.default_rng(5)
    means = np.clip(0.15 + spread * random.standard_normal(4000), -1, 1)
    predicted = betting_power(means, n, 5, 0.05)
    sets = means[random.integers(len(means), size=(300, n))]
    found = sum(certify(one[None], -1, 1, delta=0.05 / 5).chosen == 0 for one in sets)
    assert 0.2 < predicted < 0.9
    assert agrees(found, 300, predicted, 0.02)


def smallest_seen(estimates: list[Estimate]) -> float:
    return float(np.mean([power.could_have_seen(e) for e in estimates]))


@pytest.mark.parametrize("discordant", [0.1, 0.3])
def test_what_a_report_could_have_seen_is_seen_so_often_paired(discordant: float) -> None:
    """Of sets without an effect the reports say what could have been seen; sets with that effect show it."""
    nulls = Change().estimate(changes(0, discordant, 250, QUICK, 6).astype(float))
    said = smallest_seen(nulls)
    found = paired_sets(power.PairedDesign(250, discordant), said, QUICK) / QUICK
    assert 0.75 < found < 0.9
    assert said == pytest.approx(power.PairedDesign(250, discordant).smallest_effect(), rel=0.15)


def test_what_a_report_could_have_seen_is_seen_so_often_clustered() -> None:
    design = power.ClusteredDesign((6,) * 60, 0.3)
    of_row = np.repeat(np.arange(60), 6)
    random = np.random.default_rng(7)
    rows = math.sqrt(0.3) * random.standard_normal((60, QUICK))[of_row]
    rows += math.sqrt(0.7) * random.standard_normal((360, QUICK))
    said = smallest_seen(Mean().estimate(rows, of_row))
    assert said == pytest.approx(design.smallest_effect(), rel=0.1)
    assert 0.72 < clustered_sets(design, said, QUICK) / QUICK < 0.9


def test_without_an_interval_nothing_could_have_been_seen() -> None:
    assert power.could_have_seen(Estimate(0.1, math.nan, math.nan, 5, None, "none: x")) == math.inf
    assert power.could_have_seen(Estimate(0.0, -0.1, 0.1, 1000, None, "t")) == pytest.approx(0.1429, abs=2e-3)


def test_the_error_of_a_mean_is_that_of_its_clusters() -> None:
    """The variance of the formula beside that of simulated means with clusters of unequal sizes."""
    design = power.ClusteredDesign((2, 4, 8, 16, 30), 0.4, 1.5)
    of_row = np.repeat(np.arange(5), design.sizes)
    random = np.random.default_rng(8)
    rows = math.sqrt(0.4) * random.standard_normal((5, 20000))[of_row]
    rows += math.sqrt(0.6) * random.standard_normal((60, 20000))
    assert design.error() == pytest.approx(1.5 * rows.mean(0).std(), rel=0.03)
    _, sizes = np.unique(of_row, return_counts=True)
    assert intervals.cluster_t(rows[:, :2], Clusters(of_row, sizes.astype(float)))[0].shape == (2,)
