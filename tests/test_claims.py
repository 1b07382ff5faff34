"""Claims over units hold their level, equivalence is shown only where it is, and what could have been seen is seen."""

import math

import numpy as np
import pytest

from lightning_steer.statistics import claims

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("n", "sd"), [(5, 0.3), (24, 1.0)])
def test_a_claim_is_false_as_rarely_as_promised_and_true_as_often_as_said(n: int, sd: float) -> None:
    noise = sd * RANDOM.standard_normal((1000, n))
    assert np.mean([claims.above(row, sets=1).p <= 0.05 for row in noise]) < 0.07
    detectable = np.mean([claims.above(row, claims=4, sets=400).detectable for row in noise[:200]])
    share = np.mean([claims.above(row + detectable, sets=1).p <= 0.05 / 4 for row in noise])
    assert 0.72 < share < 0.88


def test_below_is_above_upside_down() -> None:
    row = RANDOM.standard_normal(24)
    below, other = claims.below(row, 0.3), claims.above(-row, -0.3)
    assert (below.p, below.detectable) == (other.p, other.detectable)
    assert below.estimate.value == pytest.approx(row.mean())
    assert below.estimate.low < row.mean() < below.estimate.high


def test_equivalence_is_rarely_shown_at_the_limit_itself() -> None:
    whole = 1 + 0.3 * RANDOM.standard_normal((2000, 24))
    for truth in (0.25, -0.25):
        parts = truth * whole + 0.2 * RANDOM.standard_normal(whole.shape)
        shown = [claims.share_within(a, b, 0.25).p <= 0.05 for a, b in zip(parts, whole, strict=True)]
        assert np.mean(shown) < 0.065
    nothing = 0.2 * RANDOM.standard_normal(whole.shape)
    least = float(np.mean([claims.share_within(a, b, 0.25).detectable for a, b in zip(nothing, whole, strict=True)]))
    shown = [claims.share_within(a, b, least).p <= 0.05 for a, b in zip(nothing, whole, strict=True)]
    assert 0.72 < np.mean(shown) < 0.88


def test_the_interval_of_a_share_lies_within_where_equivalence_is_shown() -> None:
    for _ in range(300):
        whole = 1 + 0.5 * RANDOM.standard_normal(12)
        part = 0.2 * whole + 0.2 * RANDOM.standard_normal(12)
        estimate, p, _ = claims.share_within(part, whole, 0.3)
        assert (p <= 0.05) == (estimate.low >= -0.3 and estimate.high <= 0.3)


def test_what_is_not_there_cannot_be_explained() -> None:
    estimate, p, _ = claims.share_within(RANDOM.standard_normal(12), RANDOM.standard_normal(12), 0.25)
    assert math.isnan(estimate.low)
    assert estimate.how == "none: what is to be explained may be 0"
    assert p > 0.05


def test_units_that_say_nothing_are_refused() -> None:
    for units in ([1.0], [1.0, math.nan], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="two or more finite units"):
            claims.above(units)
    assert claims.above([0.5] * 5).p == 1


def test_a_positive_control_is_found_as_often_as_its_design_says() -> None:
    units = RANDOM.standard_normal(24)
    units -= units.mean()
    detectable = claims.above(units, claims=2).detectable
    assert claims.found_again(units + detectable, 0, 2) == pytest.approx(0.8, abs=0.03)
    assert claims.found_again(units, 0, 2) < 0.06
    assert claims.found_again(np.arange(2) + 5.0) < 0.6  # sets of one value show nothing


def test_what_passes_by_chance_is_mostly_found_again() -> None:
    """So the share restates a p-value and is no power; the fidelity study's page says .68."""
    nothing = RANDOM.standard_normal((8000, 24))
    passed = [row for row in nothing if claims.above(row, sets=1).p < 0.025]
    assert np.mean([claims.found_again(row, 0, 2) for row in passed]) == pytest.approx(0.68, abs=0.06)
