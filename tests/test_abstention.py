"""Whether to steer at all: every bound keeps its promise, the default one also certifies."""

import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from scipy.stats import beta, binom, multinomial

from lightning_steer.statistics import certificates
from lightning_steer.statistics.bounds import Betting, Bound, EmpiricalBernstein, ExactPaired, Hoeffding
from lightning_steer.statistics.certificates import EXACT, Certificate, needed
from lightning_steer.statistics.multiplicity import Bonferroni, FixedSequence

BOUNDS = [Hoeffding(), EmpiricalBernstein(), Betting(), ExactPaired()]
MULTIPLICITIES = [Bonferroni(), FixedSequence(), FixedSequence(strongest_first=True)]
CHURN = (0.05, 0.2, 0.5, 1.0)
N, K, DELTA = 250, 10, 0.05


def certify(base: np.ndarray, steered: np.ndarray, **settings) -> Certificate:
    """Certify from whether each row is right, ``[N]`` before and ``[K, N]`` after."""
    return certificates.certify(steered.astype(np.int8) - base.astype(np.int8), -1, 1, **settings)


def named(value):
    return type(value).__name__


@dataclass(frozen=True)
class WrongRange(Hoeffding):
    """The paper's constant, as if the change had range 1."""

    def at(self, gains, harms, n, delta):
        return (gains - harms) / n - np.sqrt(np.log(1 / delta) / (2 * n))


# ---------------------------------------------------------------- simulated calibrations


@lru_cache(maxsize=8)
def calibrations(mean: tuple[float, ...], churn: float, count: int, seed: int) -> np.ndarray:
    """``[count, K, N]`` changes with the given true means; neighbouring candidates treat 7 of 10 rows alike."""
    rng = np.random.default_rng(seed)
    draw = rng.random((count, N), dtype=np.float32)
    changes = np.empty((count, len(mean), N), np.int8)
    for k, m in enumerate(mean):
        if k:
            draw = np.where(rng.random((count, N), dtype=np.float32) < 0.7, draw, rng.random((count, N), np.float32))
        changes[:, k] = (draw < (churn + m) / 2).astype(np.int8) - (draw > 1 - (churn - m) / 2)
    return changes


def at_least(hits: int, count: int, level: float = 0.999) -> float:
    """Exact lower confidence limit of a share."""
    return float(beta.ppf(1 - level, hits, count - hits + 1)) if hits else 0.0


def at_most(hits: int, count: int, level: float = 0.999) -> float:
    return float(beta.ppf(level, hits + 1, count - hits)) if hits < count else 1.0


def certified(bound: Bound, multiplicity, changes: np.ndarray, epsilon: float) -> np.ndarray:
    """``[count]`` whether anything is certified."""
    lower = bound.lower(changes, multiplicity.share(DELTA, changes.shape[-2]))
    return multiplicity.judge(lower, epsilon)[0].any(-1)


def false_certificates(bound: Bound, multiplicity, epsilon: float, count: int, k: int = K) -> dict[float, int]:
    """Among ``count`` calibrations of K candidates whose true improvement is epsilon exactly, by churn."""
    changes = [calibrations((epsilon,) * k, churn, count, seed) for seed, churn in enumerate(CHURN)]
    hits = certified(bound, multiplicity, np.stack(changes), epsilon).sum(-1)  # at once: counts repeat
    return dict(zip(CHURN, hits.tolist(), strict=True))


@pytest.mark.parametrize("epsilon", [0.0, 0.02])
@pytest.mark.parametrize("multiplicity", MULTIPLICITIES, ids=repr)
@pytest.mark.parametrize("bound", BOUNDS, ids=named)
def test_false_certificates_are_rarer_than_promised(bound, multiplicity, epsilon) -> None:
    count = 2000
    for churn, hits in false_certificates(bound, multiplicity, epsilon, count).items():
        assert at_least(hits, count) <= DELTA, f"churn {churn}: {hits} of {count}"


@pytest.mark.parametrize("epsilon", [0.0, 0.02])
@pytest.mark.parametrize("bound", BOUNDS, ids=named)
def test_false_certificates_of_a_single_candidate_are_rarer_than_promised(bound, epsilon) -> None:
    count = 20_000
    for churn, hits in false_certificates(bound, Bonferroni(), epsilon, count, k=1).items():
        assert at_least(hits, count) <= DELTA, f"churn {churn}: {hits} of {count}"


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [-0.02, 0.0, 0.02])
@pytest.mark.parametrize("multiplicity", MULTIPLICITIES, ids=repr)
@pytest.mark.parametrize("bound", BOUNDS, ids=named)
def test_many_false_certificates_are_rarer_than_promised(bound, multiplicity, epsilon) -> None:
    count = 20_000
    for churn, hits in false_certificates(bound, multiplicity, epsilon, count).items():
        assert at_least(hits, count) <= DELTA, f"churn {churn}: {hits} of {count}"


@pytest.mark.parametrize("k", [1, K])
def test_the_simulation_catches_the_constant_of_range_1(k) -> None:
    """So a bound that passes above has been tested: at full churn the paper's constant breaks the promise."""
    hits = false_certificates(WrongRange(), FixedSequence(), 0.0, 2000, k=1)[1.0]
    assert at_least(hits, 2000) > DELTA
    hits = false_certificates(WrongRange(), Bonferroni(), 0.0, 2000, k=K)[1.0]
    assert at_least(hits, 2000) > DELTA


@pytest.mark.parametrize("multiplicity", MULTIPLICITIES, ids=repr)
@pytest.mark.parametrize("bound", BOUNDS, ids=named)
def test_the_certified_bound_holds_for_the_chosen_candidate(bound, multiplicity) -> None:
    """All candidates improve, by different amounts: what is said of the one that was chosen is true."""
    mean, count = tuple(np.linspace(0.15, 0.25, K)), 2000
    changes = calibrations(mean, 0.5, count, 7)
    lower = bound.lower(changes, multiplicity.share(DELTA, K))
    passed, certain = multiplicity.judge(lower, 0.0)
    chosen = np.where(passed, lower, -np.inf).argmax(-1)[:, None]
    bounds_claimed = np.take_along_axis(certain, chosen, 1)[:, 0]
    wrong = int((passed.any(-1) & (np.array(mean)[chosen[:, 0]] <= bounds_claimed)).sum())
    assert at_least(wrong, count) <= DELTA


def test_the_default_has_the_most_power() -> None:
    count = 1000
    for seed, (churn, mean) in enumerate(zip(CHURN, (0.045, 0.08, 0.12, 0.17), strict=True)):
        changes = calibrations((mean,) * K, churn, count, 50 + seed)
        power = {named(bound): int(certified(bound, Bonferroni(), changes, 0.0).sum()) for bound in BOUNDS}
        default = power.pop(named(EXACT))
        assert at_least(default, count) > 0.5
        assert at_least(default, count) > max(at_most(hits, count) for hits in power.values()), (churn, default, power)


# ---------------------------------------------------------------- without chance


def shares(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All counts of n rows: gains, harms, and a function's worth of rows ``[U, 3]``."""
    gains, harms = (part.ravel() for part in np.indices((n + 1, n + 1)))
    possible = gains + harms <= n
    gains, harms = gains[possible], harms[possible]
    return gains, harms, np.stack([gains, harms, n - gains - harms], -1)


def worst_risk(bound: Bound, n: int, delta: float) -> float:
    """The largest chance, over true means and churns, that the bound exceeds the true mean: summed, not simulated."""
    gains, harms, rows = shares(n)
    lower = np.maximum(bound.at(gains, harms, n, delta), -1)
    worst = 0.0
    for mean in (*np.linspace(-0.95, 0.95, 39), 0.02, 0.005, -0.01):
        for churn in np.linspace(abs(mean), 1, 30):
            chance = multinomial.pmf(rows, n, [(churn + mean) / 2, (churn - mean) / 2, 1 - churn])
            worst = max(worst, chance[lower > mean + 1e-12].sum())
    return worst


@pytest.mark.parametrize("delta", [0.05, 0.005])
@pytest.mark.parametrize("n", [9, 40])
@pytest.mark.parametrize("bound", BOUNDS, ids=named)
def test_no_mean_and_no_churn_breaks_the_promise(bound, n, delta) -> None:
    assert worst_risk(bound, n, delta) <= delta


def test_the_sum_catches_the_constant_of_range_1() -> None:
    assert worst_risk(WrongRange(), 40, 0.05) > 0.05


def test_the_exact_bound_uses_most_of_its_risk() -> None:
    """A bound can be valid because it is never used."""
    assert worst_risk(ExactPaired(), 40, 0.05) > 0.04


@pytest.mark.parametrize("delta", [0.05, 0.01, 0.001])
def test_at_zero_the_exact_bound_is_the_sign_test(delta) -> None:
    gains, harms, _ = shares(60)
    rejected = binom.sf(gains - 1, gains + harms, 0.5) < delta
    np.testing.assert_array_equal(ExactPaired().at(gains, harms, 60, delta) > 0, rejected)


def contested(j: int, n: int, t: float) -> np.ndarray:
    """``[gains, harms]`` chances with j contested rows of n, row by row."""
    chance = np.zeros((n + 1, n + 1))
    chance[0, 0] = 1
    for row in range(n):
        gain, harm = ((1 + t) / 2, (1 - t) / 2) if row < j else (max(t, 0), max(-t, 0))
        after = (1 - gain - harm) * chance
        after[1:] += gain * chance[:-1]
        after[:, 1:] += harm * chance[:, :-1]
        chance = after
    return chance


def test_the_exact_bound_against_its_definition() -> None:
    n, delta, step = 12, 0.02, 0.0005
    gains, harms, _ = shares(n)
    lower = ExactPaired(resolution=step).at(gains, harms, n, delta)
    for g, h, bound in [*zip(gains, harms, lower, strict=True)][:: len(gains) // 12]:
        ranked = lower >= bound  # no count of a lower bound ranks above
        risk = [
            max(contested(j, n, min(t, 1))[gains, harms][ranked].sum() for j in range(n + 1))
            for t in (bound, bound + step)
        ]
        assert risk[0] <= delta or bound == -1, (g, h)
        assert risk[1] >= delta * (1 - 1e-9), (g, h)


@settings(max_examples=50)
@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=2, max_size=60), st.sampled_from([0.05, 0.001]))
def test_the_other_bounds_against_their_definitions(changes, delta) -> None:
    n, unit, m = len(changes), (np.array(changes) + 1) / 2, float(Betting(bets=3).lower(changes, delta))
    seen = np.array([changes.count(1)]), np.array([changes.count(-1)]), n, delta
    width = np.sqrt(np.log(1 / delta) / (2 * n))  # of variables in [0, 1]
    assert Hoeffding().at(*seen) == pytest.approx(2 * (unit.mean() - width) - 1)
    log = np.log(2 / delta)
    width = np.sqrt(2 * unit.var(ddof=1) * log / n) + 7 * log / (3 * (n - 1))
    assert EmpiricalBernstein().at(*seen) == pytest.approx(2 * (unit.mean() - width) - 1)
    if m > -0.9:  # below, capital is too steep in m to be compared
        least = min(np.sqrt(2 * np.log(1 / delta) / n), 1)
        bets = (least, np.sqrt(least), 1.0)
        capital = np.mean([np.prod([1 + c * (x - m) / (1 + m) for x in changes]) for c in bets])
        assert capital == pytest.approx(1 / delta, rel=1e-4)


def test_one_row_certifies_nothing_and_stays_possible() -> None:
    for bound in BOUNDS:
        assert -1 <= bound.lower([1], 0.05) < 0


def test_golden_facts() -> None:
    ties = np.zeros(N, int)
    assert Hoeffding().lower(ties, 0.01 / 10) == pytest.approx(-0.235, abs=5e-4)
    assert needed(ExactPaired(), 250, 10, 0.01) == 10
    assert needed(Hoeffding(), 250, 10, 0.01) == 59
    assert ExactPaired().lower(ties, 0.05) == pytest.approx(-(1 - 0.05 ** (1 / N)), abs=6e-4)  # the rule of three
    for n, delta in ((7, 0.05), (30, 0.01)):
        assert ExactPaired().lower(np.ones(n, int), delta) == pytest.approx(2 * delta ** (1 / n) - 1, abs=6e-4)


# ---------------------------------------------------------------- laws

bounds = st.sampled_from(BOUNDS)
risks = st.sampled_from([0.2, 0.05, 0.003])
counts = st.integers(1, 60).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n)).filter(lambda c: c[0] + c[1] <= n)
)


def rows(gains: int, harms: int, n: int) -> np.ndarray:
    return np.repeat([1, -1, 0], [gains, harms, n - gains - harms])


@settings(max_examples=150)
@given(bounds, risks, counts)
def test_a_better_row_never_lowers_the_bound(bound, delta, c) -> None:
    gains, harms, n = c
    before = bound.lower(rows(*c), delta)
    if isinstance(bound, EmpiricalBernstein) and before <= 0:
        return  # there a first gain adds more variance than mean
    better = [(gains + 1, harms)] * (gains + harms < n) + [(gains, harms - 1), (gains + 1, harms - 1)] * (harms > 0)
    for g, h in better:
        assert bound.lower(rows(g, h, n), delta) >= before - 1e-9


@pytest.mark.parametrize("delta", [0.05, 0.001])
@pytest.mark.parametrize("n", [5, 12])
def test_the_exact_bound_is_monotone_also_where_its_approximation_is_not(n, delta) -> None:
    gains, harms, _ = shares(n)
    lower = np.full((n + 1, n + 1), np.nan)
    lower[gains, harms] = ExactPaired(resolution=1e-6).at(gains, harms, n, delta)
    for axis, sign in ((0, 1), (1, -1)):
        step = sign * np.diff(lower, axis=axis)
        assert (step[np.isfinite(step)] >= 0).all()


@settings(max_examples=100)
@given(bounds, counts, st.randoms(use_true_random=False))
def test_the_order_of_rows_is_no_matter(bound, c, random) -> None:
    changes = rows(*c).tolist()
    before = bound.lower(changes, 0.05)
    random.shuffle(changes)
    assert bound.lower(changes, 0.05) == before


@settings(max_examples=100)
@given(bounds, counts)
def test_less_risk_never_raises_the_bound_and_no_bound_leaves_the_possible(bound, c) -> None:
    careful, bold = bound.lower(rows(*c), 0.01), bound.lower(rows(*c), 0.1)
    assert -1 <= careful <= bold <= 1


@settings(max_examples=50)
@given(bounds, st.integers(1, 60), st.integers(1, 60))
def test_ties_never_count_as_improvement(bound, n, k) -> None:
    same = np.random.default_rng(n).random(n) < 0.6
    result = certify(same, np.tile(same, (k, 1)), delta=0.3, bound=bound)
    assert result.chosen is None
    assert not result.estimate.any()
    assert (result.lower <= 0).all()


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([Hoeffding(), Betting()]), st.sampled_from(MULTIPLICITIES))
def test_the_choice_is_the_best_of_the_certified_the_weaker_of_equals(seed, bound, multiplicity) -> None:
    rng = np.random.default_rng(seed)
    base = rng.random(120) < 0.5
    steered = np.stack([base | (rng.random(120) < share) for share in rng.random(6)])
    steered = steered[rng.integers(0, 6, 8)]  # some twice: ties between candidates
    result = certify(base, steered, bound=bound, multiplicity=multiplicity)
    passed = [k for k in range(8) if result.certified[k]]
    if not passed:
        assert (result.chosen, result.bound) == (None, None)
        return
    best = max(result.lower[k] for k in passed)
    assert result.chosen == next(k for k in passed if result.lower[k] == best)
    assert 0 <= result.bound <= best
    np.testing.assert_allclose(result.estimate, steered.mean(1) - base.mean())


def test_many_calibrations_at_once_are_one_after_the_other() -> None:
    changes = calibrations((0.1,) * 3, 0.5, 4, 0)
    for bound in BOUNDS:
        single = [[bound.lower(candidate, 0.05) for candidate in calibration] for calibration in changes]
        np.testing.assert_array_equal(bound.lower(changes, 0.05), single)


# ---------------------------------------------------------------- what is said


def outcomes(*counted: tuple[int, int], n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Base and steered correctness with these gains and harms; half of the ties right, half wrong."""
    base = np.arange(n) % 2 == 0
    steered = np.tile(base, (len(counted), 1))
    for row, (gains, harms) in zip(steered, counted, strict=True):
        row[np.flatnonzero(~base)[:gains]] = True
        row[np.flatnonzero(base)[:harms]] = False
    return base, steered


def test_ten_gains_of_250_suffice_and_nine_do_not() -> None:
    weak = [(0, 0)] * 9
    assert certify(*outcomes(*weak, (10, 0))).chosen == 9
    result = certify(*outcomes(*weak, (9, 0)))
    assert result.chosen is None
    assert result.reason.startswith("with 250 rows and 10 candidates 10 net gains are needed even without any harm")
    assert result.reason.endswith("the best candidate has 9 (9 gains and 0 harms in 250 rows)")


@pytest.mark.parametrize("multiplicity", MULTIPLICITIES, ids=repr)
def test_a_bound_equal_to_epsilon_does_not_exceed_it(multiplicity) -> None:
    assert not multiplicity.judge(np.array([0.02, 0.02]), 0.02)[0].any()


@pytest.mark.parametrize("multiplicity", MULTIPLICITIES, ids=repr)
@pytest.mark.parametrize("bound", BOUNDS, ids=named)
def test_nothing_is_chosen_where_everything_is_harm(bound, multiplicity) -> None:
    result = certify(*outcomes(*[(0, harms) for harms in range(0, 50, 5)]), bound=bound, multiplicity=multiplicity)
    assert result.chosen is None
    assert "the best candidate has 0" in result.reason
    worst = certify(np.ones(N, bool), np.zeros((1, N), bool), epsilon=-1.0, bound=bound, multiplicity=multiplicity)
    assert worst.chosen is None


def test_a_fixed_sequence_stops_at_the_first_that_fails() -> None:
    base, steered = outcomes((20, 0), (30, 0), (0, 0), (60, 0))
    forth = certify(base, steered, multiplicity=FixedSequence())
    assert (forth.chosen, forth.certified.tolist()) == (1, [True, True, False, False])
    assert forth.bound == 0  # the bounds of a sequence do not hold together
    back = certify(base, steered, multiplicity=FixedSequence(strongest_first=True))
    assert (back.chosen, back.certified.tolist()) == (3, [False, False, False, True])
    all_pass = certify(base, steered[[0, 1, 3]], multiplicity=FixedSequence())
    assert all_pass.bound == all_pass.lower.min() > 0
    stopped = certify(base, steered[[2, 3]], multiplicity=FixedSequence())
    assert stopped.chosen is None
    assert "would pass, but one tested before it failed" in stopped.reason


def test_a_certificate_says_how_much() -> None:
    result = certify(*outcomes((2, 1), (40, 4)), delta=0.05)
    assert result.chosen == 1
    assert result.bound == result.lower[1] > 0
    assert f"by more than {result.bound:.4f} at confidence 0.95: 40 gains and 4 harms in 250 rows" in result.reason


@pytest.mark.parametrize("epsilon", [0.0, 0.05, -0.05])
@pytest.mark.parametrize("bound", BOUNDS, ids=named)
def test_needed_is_the_fewest_that_certify(bound, epsilon) -> None:
    n, k = 80, 4
    fewest = needed(bound, n, k, 0.05, epsilon)
    enough = bound.at(np.arange(n + 1), np.zeros(n + 1, int), n, 0.05 / k) > epsilon
    assert fewest == enough.argmax()
    assert enough[fewest:].all()


@pytest.mark.parametrize("bound", BOUNDS, ids=named)
def test_too_few_rows_name_how_many_would_do(bound) -> None:
    result = certify(*outcomes(*[(3, 0)] * 10, n=8), bound=bound)
    assert needed(bound, 8, 10, 0.01) is None
    rows_named = int(result.reason.removeprefix("8 rows are too few to certify anything, at least ").split()[0])
    assert needed(bound, rows_named, 10, 0.01) == rows_named
    assert needed(bound, rows_named - 1, 10, 0.01) is None


NONE = np.zeros((2, 8), int)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"delta": 0.0}, "delta is a risk between 0 and 1, not 0.0"),
        ({"delta": 1.0}, "delta is a risk between 0 and 1, not 1.0"),
        ({"delta": float("nan")}, "delta is a risk between 0 and 1, not nan"),
        ({"epsilon": 1.0}, "epsilon is a change, at least -1 and below 1, not 1.0"),
        ({"epsilon": -1.5}, "epsilon is a change, at least -1 and below 1, not -1.5"),
        ({"changes": NONE[:, :0]}, "the calibration split must have rows, not 0"),
        ({"changes": NONE[:0]}, "there must be a candidate to choose, not 0"),
        ({"changes": NONE[0]}, r"changes are \[K, n\], a row for each candidate, not of shape \[8\]"),
        ({"changes": NONE == 0}, "changes are differences of outcomes, steered minus baseline, not booleans"),
        ({"changes": NONE + 2}, "changes lie between -1 and 1 as declared, not at 2"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(change, sentence) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        certificates.certify(**{"changes": NONE, "low": -1, "high": 1, **change})


def test_other_wrong_input_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"^changes are -1, 0 or 1, not \[0.5\]$"):
        Hoeffding().lower([0.5, 1], 0.1)
    with pytest.raises(ValueError, match=r"^changes are -1, 0 or 1, not \[nan\]$"):
        Hoeffding().lower([np.nan, 1], 0.1)
    with pytest.raises(ValueError, match=r"^betting takes at least one bet, not 0$"):
        Betting(bets=0)
    with pytest.raises(ValueError, match=r"^resolution lies between 0 and 1, not 0$"):
        ExactPaired(resolution=0)
    with pytest.raises(ValueError, match=r"too large for 3000 rows: take Betting$"):
        ExactPaired().lower(np.ones(3000, int), 0.1)
    with pytest.raises(ValueError, match=r"^delta is a risk"):
        needed(Hoeffding(), 10, 1, 2.0)


# ---------------------------------------------------------------- use


def test_it_works_alone() -> None:
    code = (
        "import sys, lightning_steer.statistics.certificates;"
        "print([m for m in ('torch', 'lightning', 'transformers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # instantiate_classes is the name all versions know
def test_a_configuration_names_the_bound() -> None:
    parser = ArgumentParser()
    parser.add_argument("--bound", type=Bound, default=EXACT)
    chosen = parser.parse_args(["--bound", "Betting", "--bound.bets", "4"])
    assert parser.instantiate_classes(chosen).bound == Betting(bets=4)
