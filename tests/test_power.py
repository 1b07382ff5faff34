"""Power of paired changes against simulated sets that are judged as reports judge them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from lightning_steer.statistics import power
from lightning_steer.statistics.bounds import Betting, Bound, ExactPaired
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Change, Mean

QUICK, WHOLE = 500, 4000
CASES = [(60, 0.1, (0.0, 0.05, 0.1, 0.2)), (250, 0.2, (0.0, 0.05, 0.08))]


def agrees(count: int, sets: int, predicted: float) -> bool:
    """Whether the 99.9 % interval of a simulated share reaches the predicted one."""
    ends = binomtest(count, sets).proportion_ci(0.999)
    return ends.low <= predicted <= ends.high


def changes(effect: float, discordant: float, n: int, sets: int, seed: int) -> np.ndarray:
    discordant = max(discordant, abs(effect))
    gain, harm = (discordant + effect) / 2, (discordant - effect) / 2
    return np.random.default_rng(seed).choice([1, -1, 0], size=(n, sets), p=[gain, harm, 1 - gain - harm])


def shown(design: power.PairedDesign, effect: float, sets: int) -> int:
    """The number of simulated sets in which the interval of a report excludes 0."""
    rows = changes(effect, design.discordant, design.n, sets, 2)
    return sum(e.low > 0 or e.high < 0 for e in Change().estimate(rows.astype(float)))


def smallest_effect(design: power.PairedDesign) -> float:
    """The smallest positive effect that is found in 80 % of repeats."""
    low, high = 0.0, 1.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (low, middle) if design.power(middle) >= 0.8 else (middle, high)
    return high


@pytest.mark.parametrize(("n", "discordant", "effects"), CASES)
def test_power_is_what_simulated_sets_have(n: int, discordant: float, effects: tuple) -> None:
    design = power.PairedDesign(n, discordant)
    for effect in (*effects, smallest_effect(design)):
        assert agrees(shown(design, effect, QUICK), QUICK, design.power(effect)), effect


@pytest.mark.slow
@pytest.mark.parametrize(("n", "discordant", "effects"), CASES)
def test_power_is_what_many_simulated_sets_have(n: int, discordant: float, effects: tuple) -> None:
    design = power.PairedDesign(n, discordant)
    for effect in (*effects, smallest_effect(design)):
        assert agrees(shown(design, effect, WHOLE), WHOLE, design.power(effect)), effect


def test_rows_needed_are_the_fewest_that_do() -> None:
    design, effect = power.PairedDesign(1, 0.1), 0.05
    rows = design.units_needed(effect)
    assert rows is not None
    assert min(replace(design, n=n).power(effect) for n in range(rows, rows + power.RUN)) >= 0.8
    assert replace(design, n=rows - 1).power(effect) < 0.8
    assert design.units_needed(effect, largest=rows // 2) is None


@pytest.mark.parametrize("bound", [ExactPaired(), Betting()], ids=lambda bound_type: type(bound_type).__name__)
def test_counts_above_a_level_are_those_whose_bound_is_above_it(bound: Bound) -> None:
    gains, harms = (grid.ravel() for grid in np.indices((26, 26)))
    gains, harms = gains[gains + harms <= 25], harms[gains + harms <= 25]
    for delta, epsilon in ((0.05, 0.0), (0.01, 0.1), (0.2, -0.13), (0.05, 0.0307), (0.001, 0.9)):
        above = bound.at(gains, harms, 25, delta) > epsilon
        np.testing.assert_array_equal(bound.exceeds(gains, harms, 25, delta, epsilon), above)


def smallest_seen(estimates: list[Estimate]) -> float:
    return float(np.mean([power.could_have_seen(e) for e in estimates]))


@pytest.mark.parametrize("discordant", [0.1, 0.3])
def test_what_a_report_could_have_seen_is_seen_so_often_paired(discordant: float) -> None:
    """Of sets without an effect the reports say what could have been seen; sets with that effect show it."""
    nulls = Change().estimate(changes(0, discordant, 250, QUICK, 6).astype(float))
    smallest = smallest_seen(nulls)
    share_seen = shown(power.PairedDesign(250, discordant), smallest, QUICK) / QUICK
    assert 0.75 < share_seen < 0.9
    assert smallest == pytest.approx(smallest_effect(power.PairedDesign(250, discordant)), rel=0.15)


def test_what_a_report_could_have_seen_is_seen_so_often_clustered() -> None:
    of_row = np.repeat(np.arange(60), 6)
    random = np.random.default_rng(7)
    rows = math.sqrt(0.3) * random.standard_normal((60, QUICK))[of_row]
    rows += math.sqrt(0.7) * random.standard_normal((360, QUICK))
    smallest = smallest_seen(Mean().estimate(rows, of_row))
    assert 0.72 < np.mean([e.low > 0 for e in Mean().estimate(rows + smallest, of_row)]) < 0.9


def test_without_an_interval_nothing_could_have_been_seen() -> None:
    assert power.could_have_seen(Estimate(0.1, math.nan, math.nan, 5, None, "none: x")) == math.inf
    assert power.could_have_seen(Estimate(0.0, -0.1, 0.1, 1000, None, "t")) == pytest.approx(0.1429, abs=2e-3)
