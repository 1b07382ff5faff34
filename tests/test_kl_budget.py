"""The choice of a direction within a budget of KL."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_steer.studies.published.kl_budget import CandidateDirection, KLBudget

SCORES = st.one_of(st.floats(-20, 20), st.just(math.nan))
CANDIDATES = st.lists(
    st.builds(CandidateDirection, st.integers(-5, -1), st.integers(0, 31), SCORES, SCORES, st.floats(0, 1)), max_size=30
)


@given(CANDIDATES)
def test_the_choice_keeps_the_rule_and_none_that_does_is_better(candidates: list[CandidateDirection]) -> None:
    rule = KLBudget()
    chosen = rule.choose(candidates, 32)
    allowed = [c for c in candidates if c.kl <= 0.1 and c.added >= 0 and c.layer < 25.6 and not math.isnan(c.ablated)]
    assert (chosen is None) == (not allowed)
    assert chosen is None or (chosen in allowed and chosen.ablated == min(c.ablated for c in allowed))


@given(CANDIDATES, st.floats(0, 1))
def test_budgets_within_the_range_give_the_same_choice_and_its_end_another(
    candidates: list[CandidateDirection], budget: float
) -> None:
    rule = KLBudget(budget)
    chosen, same = rule.choose(candidates, 32), rule.same_choice(candidates, 32)
    assert (chosen is None) == (same is None)
    if chosen is None or same is None:
        return
    assert same.low <= budget < same.high
    for other in {same.low, math.nextafter(min(same.high, 2.0), 0)}:
        again = KLBudget(other).choose(candidates, 32)
        assert again is not None
        assert again.ablated == chosen.ablated
    if same.high < math.inf:
        assert KLBudget(same.high).choose(candidates, 32).ablated < chosen.ablated


def test_a_larger_budget_never_ablates_less() -> None:
    steps = [CandidateDirection(-1, i, -float(i), 1.0, i / 10) for i in range(10)]
    scores = [KLBudget(i / 10).choose(steps, 32).ablated for i in range(10)]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(("arguments", "said"), [({"budget": -1}, "-1"), ({"budget": math.nan}, "nan"),
                                                 ({"depth": 0}, "0"), ({"depth": 1.5}, "1.5")])  # fmt: skip
def test_impossible_rules(arguments: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        KLBudget(**arguments)
