"""Intended and collateral shift: a plain loop, what cannot be gamed, and the Shapley split that adds up."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reweighted import bootstrap_weights
from torch import Tensor

from lightning_steer.metrics.fidelity import icat_split, shift, shift_rows
from lightning_steer.metrics.stereoset import ANTI, STEREOTYPE, UNRELATED, Association, pooled_association, shares

SAU, ASU, USA, AUS, SUA = (2.0, 1.0, 0.0), (1.0, 2.0, 0.0), (1.0, 0.0, 2.0), (0.0, 2.0, 1.0), (2.0, 0.0, 1.0)
"""Scores of stereotype, anti-stereotype and unrelated that put the three in the order of the name."""


def case(seed: int = 0, n: int = 80) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=g), torch.randn(n, 2, 3, generator=g)


def loop(before: list[float], after: list[float], source: int, sink: int) -> tuple[float, float, float]:
    """Intended, opposed and collateral of one example without ties."""
    old, new = before.index(max(before)), after.index(max(after))
    if (old, new) == (sink, source):
        return 0, 1, 0
    above = [sum(s > scores[UNRELATED] for s in scores[:UNRELATED]) / 2 for scores in (before, after)]
    collateral = 1.0 if (old == UNRELATED) != (new == UNRELATED) else abs(above[1] - above[0])
    return float((old, new) == (source, sink)), 0, collateral


def shift_of(before: tuple[float, ...], after: tuple[float, ...]) -> float:
    return float(shift(torch.tensor([before]), torch.tensor([after])).fidelity)


@pytest.mark.parametrize(("source", "sink"), [(STEREOTYPE, ANTI), (ANTI, STEREOTYPE)])
def test_shift_is_the_loop(source: int, sink: int) -> None:
    before, after = case()
    row = shift_rows(before, after, source, sink)
    for c in range(2):
        expected = [loop(b, a, source, sink) for b, a in zip(before.tolist(), after[:, c].tolist(), strict=True)]
        torch.testing.assert_close(torch.stack(row, -1)[:, c], torch.tensor(expected, dtype=torch.float64))
    total = shift(before, after, source, sink)
    assert total.fidelity.tolist() == pytest.approx(
        (total.intended - total.opposed - total.collateral).tolist(), abs=1e-12
    )


@pytest.mark.parametrize("rounded", [False, True])
def test_every_example_lies_in_its_bounds(rounded: bool) -> None:
    before, after = (scores.round() if rounded else scores for scores in case(1, 2000))
    row = shift_rows(before, after)
    for part in row:
        assert 0 <= float(part.min()) <= float(part.max()) <= 1
    assert float(row.fidelity.min()) >= -1
    assert float(row.fidelity.max()) <= 1


def test_an_edit_that_does_nothing_has_no_fidelity() -> None:
    for before in (case()[0], case()[0].round()):  # also where sentences tie
        row = shift(before, before)
        assert [float(part) for part in (*row, row.fidelity)] == [0, 0, 0, 0]
        assert row.selectivity.isnan()


def test_the_ideal_edit_moves_all_that_it_can() -> None:
    before, _ = case(2)
    meant = before.argmax(1) == STEREOTYPE
    after = torch.where(meant.unsqueeze(1), before[:, [ANTI, STEREOTYPE, UNRELATED]], before)
    moved, share = shift(before, after), float(shares(before)[STEREOTYPE])
    assert float(moved.fidelity) == float(moved.intended) == pytest.approx(share)
    assert float(moved.selectivity) == 1
    back = shift(before, after, ANTI, STEREOTYPE)
    assert float(back.fidelity) == pytest.approx(-share)


def test_suppressing_nonsense_is_no_success() -> None:
    """The published finding about fine-tuned models: LMS, ICAT and p_anti improve, and the edit did not do its work."""
    before = torch.tensor([SAU, ASU, USA, USA])
    after = torch.tensor([SAU, ASU, SAU, ASU])
    assert float(pooled_association(after).lms) > float(pooled_association(before).lms)
    assert float(shift(before, after).fidelity) == -0.5


def test_breaking_the_model_is_no_success() -> None:
    before = torch.tensor([SAU, SAU, SAU, ASU])
    row = shift(before, torch.tensor([USA] * 4))
    assert float(shares(torch.tensor([USA] * 4))[STEREOTYPE]) == 0  # stereotypes are gone
    assert float(row.fidelity) == -1
    g = torch.Generator().manual_seed(0)
    likely, noise = torch.tensor([SAU] * 600 + [ASU] * 350 + [USA] * 50), torch.randn(1000, 3, generator=g)
    assert float(shift(likely, noise).fidelity) < -0.3


def test_harms_do_not_cancel() -> None:
    """One example leaves the stereotype for nonsense and another nonsense for the opposite: the shares look ideal."""
    before, after = torch.tensor([SAU, USA]), torch.tensor([USA, ASU])
    moved = shares(after) - shares(before)
    assert moved.tolist() == [-0.5, 0.5, 0]
    assert float(shift(before, after).fidelity) == -1


def test_nonsense_in_second_place_is_seen() -> None:
    """No choice changes, and yet half of the language modelling score is gone."""
    assert shift_of(SAU, SUA) == shift_of(ASU, AUS) == -0.5
    assert shift_of(SAU, ASU) == 1
    assert shift_of(SAU, AUS) == 0.5  # as meant, but past the unrelated sentence
    assert shift_of(ASU, SUA) == shift_of(ASU, SAU) == -1


def test_promotion_is_the_mirror_of_suppression() -> None:
    before, after = case(3)
    mirror = [ANTI, STEREOTYPE, UNRELATED]
    for a, b in zip(
        shift(before, after, ANTI, STEREOTYPE), shift(before[..., mirror], after[..., mirror]), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_weights_give_what_copies_give() -> None:
    before, after = case(4)
    weights = bootstrap_weights(len(before), 6)
    weighted = shift(before, after, weights=weights)
    for draw, counts in enumerate(weights.long()):
        rows = torch.arange(len(before)).repeat_interleave(counts)
        for a, b in zip(weighted, shift(before[rows], after[rows]), strict=True):
            torch.testing.assert_close(a[draw], b)


def test_only_the_two_related_choices_can_be_meant() -> None:
    for source, sink in ((STEREOTYPE, UNRELATED), (ANTI, ANTI)):
        with pytest.raises(ValueError, match="stereotypes to their opposites"):
            shift(*case(), source, sink)


PERCENT = st.floats(0, 100)


@given(PERCENT, PERCENT, PERCENT, PERCENT)
def test_split_adds_up_to_the_change_of_icat(ss0: float, lms0: float, ss1: float, lms1: float) -> None:
    before, after = (
        Association(torch.tensor(ss, dtype=torch.float64), torch.tensor(lms, dtype=torch.float64))
        for ss, lms in ((ss0, lms0), (ss1, lms1))
    )
    split, back = icat_split(before, after), icat_split(after, before)
    m0, m1 = (min(ss, 100 - ss) / 50 for ss in (ss0, ss1))
    assert float(split.lms + split.ss) == pytest.approx(lms1 * m1 - lms0 * m0, abs=1e-9)
    # Shapley's value: the mean of changing LMS first and changing it last
    assert float(split.lms) == pytest.approx(((lms1 - lms0) * m0 + (lms1 - lms0) * m1) / 2, abs=1e-9)
    assert float(split.ss) == pytest.approx((lms0 * (m1 - m0) + lms1 * (m1 - m0)) / 2, abs=1e-9)
    assert float(back.lms + split.lms) == pytest.approx(0, abs=1e-9)
    same = icat_split(before, Association(after.ss, before.lms))
    assert float(same.lms) == 0


def test_split_of_many_at_once() -> None:
    before, after = case(5)
    weights = bootstrap_weights(len(before), 4)
    old, new = pooled_association(before.unsqueeze(1), weights), pooled_association(after, weights)
    split = icat_split(old, new)
    torch.testing.assert_close(split.lms + split.ss, new.icat - old.icat)
    assert split.ss.shape == (4, 2)
