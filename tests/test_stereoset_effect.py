"""What steering did to StereoSet's choices and to a behaviour: rows, estimates, words; intervals in simulation."""

from typing import Any

import pytest
import torch
from scipy.stats import ttest_1samp
from torch import Tensor

from lightning_steer.data.base import PairBatch
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.metrics.behaviour_effect import (
    BehaviourEffect,
    behaviour_estimates,
    behaviour_rows,
    table_estimates,
)
from lightning_steer.metrics.columns import estimate_columns
from lightning_steer.metrics.fidelity import icat_split, shift
from lightning_steer.metrics.likelihood import auc, cohens_d, margin, promotion_table
from lightning_steer.metrics.stereoset import ANTI, STEREOTYPE, association, shares
from lightning_steer.metrics.stereoset_effect import StereoSetEffect, effect_estimates, effect_rows
from lightning_steer.statistics.kinds import Mean


def case(n: int = 60, candidates: int = 4, options: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(n, options, generator=g)
    scores = base + 0.7 * torch.randn(candidates, n, options, generator=g)
    return base, scores, torch.arange(n) * 7 // n  # seven clusters of unequal size


def contrast(options: tuple[str, ...], negative: int, positive: int, n: int) -> PairBatch:
    questions = [MultipleChoice("p", options)] * n
    sides = [[MultipleChoice("p", (options[i],))] * n for i in (negative, positive)]
    return PairBatch(questions, *sides, y=torch.zeros(n), row=torch.arange(n))


def columns(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: column.T for name, column in rows.items()}


@pytest.mark.parametrize("promote", [False, True])
def test_rows_are_the_metrics_of_each_example(promote: bool) -> None:
    base, scores, _ = case()
    source, sink = (ANTI, STEREOTYPE) if promote else (STEREOTYPE, ANTI)
    batch = contrast(("s", "a", "u"), source, sink, len(base))
    rows = StereoSetEffect().rows(base, scores, batch)
    assert all(column.shape == scores.shape[:2] for column in rows.values())
    expected = shift(base, scores.transpose(0, 1), source, sink)
    for name in ("intended", "opposed", "collateral", "fidelity"):
        torch.testing.assert_close(rows[name].mean(1), getattr(expected, name))
    measured = torch.stack([rows[name].mean(1) for name in ("p_stereotype", "p_anti", "p_unrelated")], -1)
    torch.testing.assert_close(measured, shares(scores.transpose(0, 1)))
    torch.testing.assert_close(
        rows["margin_change"],
        ((scores[..., sink] - scores[..., source]) - (base[..., sink] - base[..., source])).double(),
        atol=1e-6,
        rtol=1e-6,
    )
    assert StereoSetEffect().rows(base, base[None], batch)["fidelity"].abs().max() == 0


def test_estimates_are_the_official_scores_and_their_split() -> None:
    base, scores, term = case()
    estimates = effect_estimates(columns(effect_rows(base, scores)), term)
    for c, scores_of_candidate in enumerate(scores):
        after, before = association(scores_of_candidate, term), association(base, term)
        split = icat_split(before, after)
        expected = {
            "ss": after.ss,
            "lms": after.lms,
            "icat": after.icat,
            "ss_change": after.ss - before.ss,
            "icat_change": after.icat - before.icat,
            "icat_lms_part": split.lms,
            "icat_ss_part": split.ss,
        }
        for name, value in expected.items():
            estimate = estimates[name][c]
            assert estimate.value == pytest.approx(float(value), abs=1e-9), name
            assert estimate.low <= estimate.value <= estimate.high
            assert (estimate.n, estimate.clusters) == (60, 7)
        each = [float(association(scores_of_candidate[term == t], term[term == t]).ss) for t in term.unique()]
        interval = ttest_1samp(each, 0).confidence_interval(0.95)
        assert estimates["ss"][c].low <= max(interval.low, 0) + 1e-9  # or wider, near a bound
        assert estimates["icat_lms_part"][c].value + estimates["icat_ss_part"][c].value == pytest.approx(
            estimates["icat_change"][c].value
        )


def test_terms_count_the_same_in_ss_and_examples_in_shares() -> None:
    base = torch.tensor([[1.0, 0, -1]] * 9 + [[0.0, 1, -1]])
    rows = columns(effect_rows(base, base[None]))
    term = torch.tensor([0] * 9 + [1])
    estimates = effect_estimates(rows, term)
    assert estimates["ss"][0].value == pytest.approx(50)
    assert estimates["p_stereotype"][0].value == pytest.approx(0.9)


def test_a_share_that_is_the_same_everywhere_keeps_an_interval() -> None:
    base, _, term = case()
    estimates = effect_estimates(columns(effect_rows(base, base[None])), term)
    assert estimates["collateral"][0].value == 0
    assert 0 < estimates["collateral"][0].high < 0.5
    assert estimates["fidelity"][0].low < 0 < estimates["fidelity"][0].high


def test_a_single_candidate_needs_no_second_dimension() -> None:
    base, scores, term = case(candidates=1)
    rows = columns(effect_rows(base, scores))
    flat = {name: column[:, 0] for name, column in rows.items()}
    expected = effect_estimates(rows, term)
    for name, (estimate,) in effect_estimates(flat, term).items():
        assert estimate[:3] == pytest.approx(expected[name][0][:3], nan_ok=True), name  # sums run in another order
        assert estimate[3:] == expected[name][0][3:]
    with pytest.raises(ValueError, match=r"one number for each of the 60 rows, not of shape \[59\]"):
        effect_estimates(rows, term[:-1])


@pytest.mark.parametrize(("effect", "options"), [(StereoSetEffect(), 3), (BehaviourEffect(), 2)])
def test_losses_fall_where_what_was_meant_gets_likelier(effect: Any, options: int) -> None:
    names = ("first", "second", "third")[:options]
    for source, sink in ((0, 1), (1, 0)):
        batch = contrast(names, source, sink, 5)
        scores = torch.zeros(3, 5, options)
        scores[1, :, sink], scores[2, :, source] = 1, 1
        loss = effect.loss(scores, batch)
        assert loss.shape == (3, 5)
        assert (loss[1] < loss[0]).all()
        assert (loss[0] < loss[2]).all()
        rows = effect.rows(scores[0], scores, batch)
        table = effect.estimates(columns(rows), torch.tensor([0, 0, 1, 1, 2]))
        assert set(effect.headline) | set(effect.also) <= table.keys()
        assert set(effect.shown) <= set(effect.headline)
        assert (rows[effect.success][1] > rows[effect.success][2]).all()


def test_behaviour_rows_and_estimates_are_those_of_the_metrics() -> None:
    base, scores, cluster = case(options=2)
    rows = columns(behaviour_rows(base, scores))
    estimates = behaviour_estimates(rows, cluster)
    for c, scores_of_candidate in enumerate(scores):
        for measure in (margin, auc, cohens_d):
            assert estimates[measure.__name__][c].value == pytest.approx(float(measure(scores_of_candidate)), abs=1e-6)
        assert estimates["auc_change"][c].value == pytest.approx(float(auc(scores_of_candidate) - auc(base)), abs=1e-6)
        assert estimates["positive_change"][c].value == pytest.approx(
            float((scores_of_candidate - base)[:, 0].mean()), abs=1e-6
        )
    suppress = behaviour_rows(base, scores, 0, 1)
    torch.testing.assert_close(suppress["intended_preferred"], 1 - suppress["preference"])
    table = table_estimates(base - 2, scores[0] - 2)
    torch.testing.assert_close(
        torch.tensor([[cell.value for cell in quarter] for quarter in table], dtype=torch.float64),
        promotion_table(base - 2, scores[0] - 2),
    )
    assert all(cell.how.startswith("none: ") for quarter in table for cell in quarter)


def test_what_is_nan_is_refused() -> None:
    base, scores, _ = case(options=2)
    scores[1, 3, 0] = torch.nan
    with pytest.raises(ValueError, match="log-likelihood NaN"):
        behaviour_rows(base, scores)
    base, scores, _ = case()
    scores[1, 3, 0] = torch.nan
    with pytest.raises(ValueError, match="the scores of example 3 are NaN"):
        effect_rows(base, scores)


def estimate(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 24, "clusters": 6, "how": "t over clusters (CR2)"}


def draws(low: float, high: float, p: float) -> dict[str, Any]:
    return {"value": 0.0, "low": low, "high": high, "n": 20, "p": p}


def test_words_say_what_moved_besides() -> None:
    small, large = estimate(0.05, 0.02, 0.08), estimate(0.2, 0.15, 0.25)
    metrics = dict.fromkeys((*StereoSetEffect.headline, "strength"), small) | {"collateral": large}
    plain = dict.fromkeys(StereoSetEffect.headline, small)
    baselines = {"baseline": plain, "random_control": {"fidelity": draws(-0.1, 0.1, 3 / 21)}}
    warnings = StereoSetEffect().warnings(metrics, baselines)
    assert len(warnings) == 2
    assert "2 of 20 random directions of equal norm reach 0.050 or more" in warnings[1]
    nothing = dict.fromkeys(metrics, estimate(0.0, -0.1, 0.1))
    assert not StereoSetEffect().warnings(nothing, baselines)  # a run that steers nothing is not compared with a push
    assert "unrelated sentence" in StereoSetEffect().verdict(metrics, baselines)
    assert not StereoSetEffect().warnings(metrics | {"collateral": small, "fidelity": large}, baselines)
    (noise,) = StereoSetEffect().warnings(
        metrics | {"collateral": small, "fidelity": estimate(0.2, -0.1, 0.5)}, baselines
    )
    assert "fidelity includes 0" in noise
    fallen = estimate(-0.3, -0.4, -0.2)
    moved = dict.fromkeys((*BehaviourEffect.headline, "strength"), large)
    both = moved | {"positive_change": fallen, "negative_change": fallen}
    assert len(BehaviourEffect().warnings(both, {"baseline": moved})) == 1
    by_chance = {"baseline": moved, "random_control": {"margin_change": draws(-0.3, 0.3, 5 / 21)}}
    assert len(BehaviourEffect().warnings(moved, by_chance)) == 1
    (noise,) = BehaviourEffect().warnings(moved | {"margin_change": estimate(0.3, -0.1, 0.7)}, {"baseline": moved})
    assert "change includes 0" in noise
    assert "held-out prompts" in BehaviourEffect().verdict(moved, by_chance)


def simulated(run: int, terms: int = 30) -> tuple[Tensor, Tensor, Tensor]:
    """Examples of terms that differ; candidate 0 moves a known mean number of choices."""
    g = torch.Generator().manual_seed(run)
    term = torch.arange(terms).repeat_interleave(6)
    taste = 0.8 * torch.randn(terms, generator=g)[term]
    noise = torch.randn(len(term), 2, generator=g)
    base = torch.stack([0.4 + taste + noise[:, 0], torch.zeros(len(term)), torch.full((len(term),), -9.0)], -1)
    after = base.clone()
    after[:, STEREOTYPE] -= 0.6 + 0.5 * noise[:, 1]
    return base, after[None], term


def test_intervals_of_fidelity_cover_the_truth() -> None:
    """The truth is the mean over half a million examples of as many terms."""
    many = torch.cat([effect_rows(*simulated(10_000 + r, 2000)[:2])["fidelity"].mean(1) for r in range(40)])
    truth, hits = float(many.mean()), 0
    for run in range(500):
        base, after, term = simulated(run)
        rows = {"fidelity": effect_rows(base, after)["fidelity"].T}
        fidelity = effect_estimates(rows, term)["fidelity"][0]
        hits += fidelity.low <= truth <= fidelity.high
    assert hits / 500 >= 0.93


@pytest.mark.parametrize(
    ("kind", "value", "low", "high"),
    [
        (Mean(0, 1), 0.0, 0.0, 0.1),
        (Mean(0, 1), 1.0, 0.9, 1.0),
        (Mean(-1, 1), 0.0, -0.1, 0.1),
        (Mean(-2, 2), 0.0, -0.2, 0.2),
    ],
)
def test_what_is_the_same_in_every_cluster_is_not_known_for_sure(
    kind: Mean, value: float, low: float, high: float
) -> None:
    """30 clusters without an event: its share may well be a tenth; the ends are at least as far out as that."""
    reach = 1 - 0.025 ** (1 / 30)
    rows = torch.full((60, 1), value, dtype=torch.float64)
    (estimate,) = estimate_columns({"x": rows}, {"x": kind}, torch.arange(60) % 30)["x"]
    assert estimate.low <= value - (value - low) * reach / 0.1 + 1e-12
    assert estimate.high >= value + (high - value) * reach / 0.1 - 1e-12
    assert kind.low <= estimate.low <= estimate.high <= kind.high
    (free,) = estimate_columns({"x": rows}, {"x": Mean()}, torch.arange(60))["x"]
    assert free.low != free.low  # nats have no range that would say how far off it could be
    assert "the same whatever rows are left out" in free.how
