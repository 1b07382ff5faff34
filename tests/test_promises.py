"""Several promises at once: tests at each candidate's share of delta, the choice, and how often it is false."""

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_steer.statistics.bounds import Betting, ExactPaired
from lightning_steer.statistics.promises import MOST_EXACT, Promise, choose, keep

K, DELTA = 4, 0.05


def rows(gains: int, harms: int, n: int) -> NDArray:
    return np.repeat([1, -1, 0], [gains, harms, n - gains - harms])


def test_the_sign_test_at_a_limit_of_zero() -> None:
    evidence = keep(Promise("right", np.stack([rows(9, 1, 60), rows(5, 5, 60)]), -1, 1, 0.0), DELTA)
    assert (evidence.p >= [11 / 1024, 638 / 1024]).all()  # the sign test: of ten discordant rows at least 9, at least 5
    assert evidence.certified.tolist() == [True, False]
    assert evidence.needed == [60, None]  # as many gains as harms: no number of rows would do


@pytest.mark.parametrize("mean", [-0.1, 0.0, 0.05])
def test_a_p_value_and_a_bound_say_the_same(mean: float) -> None:
    n, bound = 60, ExactPaired()
    counts = np.array([(g, h) for g, h in product(range(0, 31, 3), repeat=2)]).T
    refuted = bound.refutes(*counts, n, mean, 0.01)
    assert (refuted == (bound.p_value(*counts, n, mean, 0.01) < 0.01)).all()
    lower = bound.at(*counts, n, 0.01)
    assert refuted.any()
    assert (lower[refuted] > mean - bound.resolution).all()
    assert (lower[~refuted] <= mean).all()
    values = np.stack([rows(g, h, n) for g, h in counts.T]).astype(float)
    betting = Betting()
    assert (betting.refutes(values, mean, 0.01) == (betting.p_value(values, mean, 0.01) <= 0.01)).all()


@pytest.mark.parametrize(("gains", "harms", "mean"), [(0.0, 0.05, -0.05), (0.1, 0.1, 0.0), (0.06, 0.01, 0.05)])
@pytest.mark.parametrize("exact", [True, False])
def test_p_values_are_small_as_rarely_as_they_say(gains: float, harms: float, mean: float, exact: bool) -> None:
    n, sets = 60, 4000
    random = np.random.default_rng(7)
    g, h, _ = random.multinomial(n, [gains, harms, 1 - gains - harms], sets).T
    if exact:
        p = ExactPaired().p_value(g, h, n, mean, 0.05)
    else:
        p = Betting().p_value(
            np.stack([rows(*counts, n) for counts in zip(g, h, strict=True)]).astype(float), mean, 0.05
        )
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() <= level + 2.6 * np.sqrt(level * (1 - level) / sets)


def test_the_largest_benefit_among_those_that_keep_every_promise() -> None:
    n = 400
    benefit = np.stack([rows(100, 0, n), rows(150, 0, n), rows(200, 0, n), rows(30, 30, n)])
    harm = np.stack([rows(0, 0, n), rows(0, 2, n), rows(0, 60, n), rows(0, 0, n)])
    choice = choose([Promise("refused", benefit, -1, 1, 0.0), Promise("right", harm, -1, 1, -0.05)], DELTA)
    assert choice.certified.tolist() == [True, True, False, False]
    assert choice.chosen == 1
    assert choice.risk == DELTA / K
    assert (choice.p == np.maximum(choice.kept[0].p, choice.kept[1].p)).all()
    assert choice.kept[1].needed[2] is None  # a loss of 15 % is no loss of at most 5 %
    assert choose([Promise("right", harm[2:] * 1, -1, 1, -0.05), Promise("refused", benefit[2:], -1, 1, 0.0)],
                  DELTA).chosen is None  # fmt: skip


def test_rows_that_are_said_to_be_needed_are_enough() -> None:
    harm = np.stack([rows(1, 2, 100)])
    needed = keep(Promise("right", harm, -1, 1, -0.05), DELTA).needed[0]
    assert needed is not None
    assert needed > 100
    more = np.resize(harm, (1, needed + 100 - needed % 100))
    assert keep(Promise("right", more, -1, 1, -0.05), DELTA).certified.all()


def test_clusters_count_once_and_graded_values_are_bet_on() -> None:
    cluster = np.repeat(np.arange(12), 50)
    gains = np.stack([np.repeat([1, 0], [150, 450])])
    alone, grouped = (keep(Promise("x", gains, -1, 1, 0.0, c), DELTA) for c in (None, cluster))
    assert alone.certified.all()
    assert (alone.units, grouped.units) == (600, 12)
    assert not grouped.certified.any()
    assert "clusters" in grouped.how
    graded = keep(Promise("x", gains * 0.5, -1, 1, 0.0), DELTA)
    assert "betting" in graded.how
    repeated = keep(Promise("x", np.resize(gains, (1, MOST_EXACT + 1)), -1, 1, 0.0), DELTA)
    assert "betting" in repeated.how
    assert repeated.certified.all()


def test_a_choice_breaks_a_promise_in_at_most_delta_of_tables() -> None:
    """One candidate is good; the others break a promise each, at its very limit, in measures that move together."""
    n, sets, false = 100, 1000, 0
    random = np.random.default_rng(11)
    for _ in range(sets):
        shared = random.random(n)
        benefit = np.stack([rows(0, 0, n), (shared < 0.3).astype(int), (random.random(n) < 0.4).astype(int)])
        harm = -np.stack([shared < 0.0, shared < 0.05, random.random(n) < 0.05]).astype(int)
        choice = choose([Promise("refused", benefit, -1, 1, 0.0), Promise("right", harm, -1, 1, -0.05)], DELTA)
        false += choice.chosen is not None
    assert false / sets <= DELTA + 2.6 * np.sqrt(DELTA * (1 - DELTA) / sets)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: choose([], DELTA), "at least one"),
        (
            lambda: choose(
                [Promise("x", np.zeros((2, 3), int), -1, 1, 0), Promise("y", np.zeros((3, 3), int), -1, 1, 0)], DELTA
            ),
            "same candidates",
        ),
        (lambda: choose([Promise("x", np.zeros((2, 3), int), -1, 1, 0)], 1.0), "delta"),
        (lambda: Promise("x", np.zeros(3), -1, 1, 0), r"\[K, n\]"),
        (lambda: Promise("x", np.zeros((1, 3)), -np.inf, 1, 0), "finite"),
        (lambda: Promise("x", np.zeros((1, 3)), -1, 1, 1), "limit"),
        (lambda: Promise("x", np.full((1, 3), np.nan), -1, 1, 0), "NaN"),
        (lambda: Promise("x", np.full((1, 3), 2), -1, 1, 0), "lie between"),
    ],
)
def test_what_is_refused(broken, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        broken()


@pytest.mark.parametrize("clustered", [False, True])
def test_the_fewest_units_that_certify_if_nothing_changes(clustered: bool) -> None:
    def certifies(units: int) -> bool:
        cluster = np.repeat(np.arange(units), 2) if clustered else None
        still = np.zeros((1, units * (2 if clustered else 1)), int)
        return bool(keep(Promise("right", still, -1, 1, -0.05, cluster), 0.005).certified[0])

    least = keep(Promise("right", np.zeros((1, 4), int), -1, 1, -0.05, np.array([0, 0, 1, 1]) if clustered else None),
                 0.005).least  # fmt: skip
    assert least is not None
    assert certifies(least)
    assert not certifies(
        least - (20 if clustered else 1)
    )  # betting spreads its money on eight bets, of which one is best
    assert keep(Promise("refused", np.zeros((1, 4), int), -1, 1, 0.0), 0.005).least is None


def test_a_stronger_setting_is_not_chosen_for_being_stronger() -> None:
    n = 400
    harm = np.zeros((3, n), int)
    for gains, chosen in (((100, 150, 120), 1), ((150, 150, 100), 0)):
        benefit = np.stack([rows(g, 0, n) for g in gains])
        choice = choose([Promise("refused", benefit, -1, 1, 0.0), Promise("right", harm, -1, 1, -0.05)], DELTA)
        assert choice.certified.all()
        assert choice.chosen == chosen
