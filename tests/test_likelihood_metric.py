"""The paper's table against its published cells, and what its normaliser does; the others against plain loops."""

import math
import os
import re

import numpy as np
import pytest
import torch
from conftest import ROOT
from reweighted import bootstrap_weights, leave_one_out
from test_stereoset_metric import DATA
from torch import Tensor

from lightning_steer.metrics.behaviour_effect import BehaviourEffect, behaviour_estimates
from lightning_steer.metrics.likelihood import (
    NEGATIVE,
    POSITIVE,
    auc,
    change_of_halves,
    cohens_d,
    margin,
    mean_likelihood,
    preference,
    promotion_table,
    sorted_curves,
)

needs_data = pytest.mark.skipif(
    "LIGHTNING_STEER_DATA" not in os.environ, reason="LIGHTNING_STEER_DATA is unset: the real data are not there"
)
LABELS_SWAPPED = [1, 0]
PUBLISHED = {
    ("truthful_control", "truthful_tuned", True): [
        (0.0753, 0.0761),
        (0.0646, 0.0692),
        (0.0474, 0.0607),
        (0.0283, 0.0653),
    ],
    ("myopia_control", "myopia_steer", False): [
        (-0.0210, 0.0511),
        (-0.0303, 0.0476),
        (-0.0337, 0.0495),
        (-0.0176, 0.0517),
    ],
}


def published(name: str, first_half_positive: bool) -> Tensor:
    """``[n, 2]`` log-likelihoods of the release."""
    matrix = torch.load(DATA / "behaviour" / f"{name}.pt", weights_only=True).reshape(2, -1).T
    return matrix if first_half_positive else matrix[:, LABELS_SWAPPED]


def case(seed: int = 0, n: int = 30, ties: bool = False) -> tuple[Tensor, Tensor]:
    """Log-likelihoods of prompts that differ, unsteered and steered."""
    g = torch.Generator().manual_seed(seed)
    prompt = 0.3 * torch.randn(n, 1, generator=g)
    control = -1.5 + prompt + 0.3 * torch.randn(n, 2, generator=g)
    steered = control + torch.tensor([0.1, -0.05]) + 0.2 * torch.randn(n, 2, generator=g)
    return (control.round(decimals=1), steered.round(decimals=1)) if ties else (control, steered)


def table_by_loop(control: Tensor, steered: Tensor, compat: bool) -> list[tuple[float, float]]:
    """The table as the paper tells it (or, with ``compat``, as the release computes it)."""
    scaled = []
    for ll in (control.double(), steered.double()):
        positive, negative = ll[:, 0].tolist(), ll[:, 1].tolist()
        c = -max(positive + negative) if compat else -(max(negative) + min(positive)) / 2
        scaled.append([[x / c for x in positive], [x / c for x in negative]])
    (positive, negative), (positive_after, negative_after) = scaled
    n = len(positive)
    up, down = sorted(range(n), key=lambda i: positive[i]), sorted(range(n), key=lambda i: -negative[i])
    cells = []
    for quarter in (1, 2, 3, 4):
        k = n * quarter // 4
        promotion = sum(positive_after[i] - positive[i] for i in up[:k]) / k
        suppression = sum(negative[i] - negative_after[i] for i in down[:k]) / k
        cells.append((promotion, suppression))
    return cells


@needs_data
@pytest.mark.parametrize(("control", "steered", "first_half_positive"), PUBLISHED)
def test_published_cells(control: str, steered: str, first_half_positive: bool) -> None:
    table = promotion_table(published(control, first_half_positive), published(steered, first_half_positive))
    expected = torch.tensor(PUBLISHED[control, steered, first_half_positive], dtype=torch.float64)
    torch.testing.assert_close(table, expected, rtol=0, atol=5.001e-5)  # four decimals


@needs_data
def test_no_published_tensor_is_left_out() -> None:
    names = {name for control, steered, _ in PUBLISHED for name in (control, steered)}
    assert names == {path.stem for path in (DATA / "behaviour").glob("*.pt")}


@needs_data
def test_published_cells_are_not_those_of_the_release() -> None:
    control, steered = (published(f"myopia_{which}", False) for which in ("control", "steer"))
    assert (promotion_table(control, steered, compat=True) - promotion_table(control, steered)).abs().min() > 0.1


@needs_data
def test_what_a_swap_does_to_the_published_cells() -> None:
    """The signs of one row turn round and those of another do not: docs/likelihood.md says which."""
    turned = {}
    for (control, steered, first_half_positive), cells in PUBLISHED.items():
        pair = [published(name, not first_half_positive) for name in (control, steered)]
        swapped, right = promotion_table(*pair), torch.tensor(cells, dtype=torch.float64)
        turned[steered] = (swapped.sign() == -right.sign()).all(0).tolist()
        if steered == "truthful_tuned":
            assert (swapped[:, POSITIVE].min(), swapped[:, POSITIVE].max()) == pytest.approx((0.109, 0.126), abs=5e-4)
    assert turned == {"truthful_tuned": [False, True], "myopia_steer": [True, True]}


@needs_data
def test_promotion_from_nothing_in_the_published_table() -> None:
    """The first cell for ITI says .075; the positives it is about became likelier by .006 nats."""
    control, steered = published("truthful_control", True), published("truthful_tuned", True)
    lowest = control[:, POSITIVE].argsort()[: len(control) // 4]
    assert float((steered - control)[lowest, POSITIVE].mean()) == pytest.approx(0.006, abs=5e-4)
    assert float(promotion_table(control, steered)[0, 0]) == pytest.approx(0.0753, abs=5e-5)
    assert float(change_of_halves(control, steered)[POSITIVE]) == pytest.approx(-0.022, abs=5e-4)  # over all prompts


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("n", [4, 49, 50])
def test_table_is_the_loop(n: int, compat: bool) -> None:
    control, steered = case(n=n)
    table = promotion_table(control, steered, compat=compat)
    torch.testing.assert_close(table, torch.tensor(table_by_loop(control, steered, compat), dtype=torch.float64))


@pytest.mark.parametrize("compat", [False, True])
def test_table_of_drawn_prompts_is_the_table_of_their_copies(compat: bool) -> None:
    control, steered = case(seed=1)
    weights = bootstrap_weights(len(control), 8)
    table = promotion_table(control, steered, weights, compat=compat)
    for draw, counts in enumerate(weights.long()):
        rows = torch.arange(len(control)).repeat_interleave(counts)
        torch.testing.assert_close(table[draw], promotion_table(control[rows], steered[rows], compat=compat))


def test_swapped_labels_turn_all_but_the_table_round() -> None:
    control, steered = case(seed=2)
    for ll in (control, steered):
        other = ll[:, LABELS_SWAPPED]
        assert float(margin(other)) == pytest.approx(-float(margin(ll)), abs=1e-7)
        assert float(preference(other)) == pytest.approx(1 - float(preference(ll)))
        assert float(auc(other)) == pytest.approx(1 - float(auc(ll)))
        assert float(cohens_d(other)) == pytest.approx(-float(cohens_d(ll)))
    swapped = control[:, LABELS_SWAPPED], steered[:, LABELS_SWAPPED]
    torch.testing.assert_close(change_of_halves(*swapped), change_of_halves(control, steered)[LABELS_SWAPPED])
    fallen = control - 0.4  # the normaliser praises this whichever half is called the positive one
    assert promotion_table(control, fallen)[0, POSITIVE] > 0
    assert promotion_table(control[:, LABELS_SWAPPED], fallen[:, LABELS_SWAPPED])[0, POSITIVE] > 0


def test_normalising_by_extremes_promotes_from_nothing() -> None:
    """Every continuation becomes less likely by the same amount: the table praises it, raw changes do not."""
    control, _ = case(seed=3)
    steered = control - 0.4
    assert (promotion_table(control, steered)[0] > 0.03).all()
    torch.testing.assert_close(change_of_halves(control, steered), torch.full((2,), -0.4, dtype=torch.float64))
    assert float(margin(steered) - margin(control)) == pytest.approx(0, abs=1e-6)
    assert float(auc(steered)) == float(auc(control))
    # nor does a table whose positives change by one single negative deserve the name
    control_copy = control.clone()
    control_copy[control[:, NEGATIVE].argmax(), NEGATIVE] -= 0.5
    assert promotion_table(control, control_copy)[0, POSITIVE] != 0
    assert change_of_halves(control, control_copy)[POSITIVE] == 0


def test_curves_are_sorted_by_the_unsteered_model() -> None:
    control, steered = case(seed=4)
    curves = sorted_curves(control, steered)
    n = len(control)
    assert (curves.control[:n].diff() >= 0).all()
    assert (curves.control[n:].diff() >= 0).all()
    negative, positive = control[:, 1].tolist(), control[:, 0].tolist()
    c = [-(float(ll[:, 1].max()) + float(ll[:, 0].min())) / 2 for ll in (control, steered)]
    rows = [(i, 1) for i in sorted(range(n), key=lambda i: negative[i])]
    rows += [(i, 0) for i in sorted(range(n), key=lambda i: positive[i])]
    assert curves.control.tolist() == pytest.approx([float(control[i, k]) / c[0] for i, k in rows])
    assert curves.steered.tolist() == pytest.approx([float(steered[i, k]) / c[1] for i, k in rows])
    upper, lower = np.percentile(np.array(negative) / c[0], 75), np.percentile(np.array(positive) / c[0], 25)
    assert curves.negative_band == pytest.approx((upper, max(negative) / c[0]))
    assert curves.positive_band == pytest.approx((min(positive) / c[0], lower))


def test_padding_counts_for_the_release_only() -> None:
    g = torch.Generator().manual_seed(0)
    logp, scored = -torch.rand(3, 5, generator=g), torch.tensor([[0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]]) > 0
    expected = [sum(x for x, s in zip(a, b, strict=True) if s) for a, b in zip(logp.tolist(), scored, strict=True)]
    alone = [total / int(s.sum()) for total, s in zip(expected, scored, strict=True)]
    padded = torch.nn.functional.pad(logp, (0, 4), value=-9.0), torch.nn.functional.pad(scored, (0, 4))
    assert mean_likelihood(logp, scored).tolist() == pytest.approx(alone)
    assert mean_likelihood(*padded).tolist() == pytest.approx(alone)
    assert mean_likelihood(logp, scored, compat=True).tolist() == pytest.approx([total / 5 for total in expected])
    assert mean_likelihood(*padded, compat=True).tolist() == pytest.approx([total / 9 for total in expected])
    with pytest.raises(ValueError, match="row 1 has no continuation token"):
        mean_likelihood(logp, scored & torch.tensor([[True], [False], [True]]))


@pytest.mark.parametrize("ties", [False, True])
def test_measures_are_the_loops(ties: bool) -> None:
    pairs = case(seed=5, ties=ties)
    both = torch.stack(pairs, 1)  # two candidates side by side
    for c, ll in enumerate(pairs):
        positive, negative = ll[:, 0].tolist(), ll[:, 1].tolist()
        n = len(positive)
        paired = list(zip(positive, negative, strict=True))
        assert float(margin(both)[c]) == pytest.approx(sum(p - q for p, q in paired) / n, abs=1e-6)
        wins = sum((p > q) + (p == q) / 2 for p, q in paired) / n
        assert float(preference(both)[c]) == pytest.approx(wins)
        area = sum((p > q) + (p == q) / 2 for p in positive for q in negative) / n**2
        assert float(auc(both)[c]) == pytest.approx(area)
        spread = math.sqrt((np.var(positive, ddof=1) + np.var(negative, ddof=1)) / 2)
        assert float(cohens_d(both)[c]) == pytest.approx((np.mean(positive) - np.mean(negative)) / spread, rel=1e-5)
    change = change_of_halves(pairs[0], both)
    assert change[0].tolist() == [0, 0]
    torch.testing.assert_close(change[1], (pairs[1] - pairs[0]).double().mean(0))


@pytest.mark.parametrize("measure", [margin, preference, auc, cohens_d])
def test_weights_give_what_copies_give(measure: object) -> None:
    both = torch.stack(case(seed=6, ties=True), 1)
    weights = bootstrap_weights(len(both), 7)
    estimates = measure(both, weights)  # type: ignore[operator]
    assert estimates.shape == (7, 2)
    for draw, counts in enumerate(weights.long()):
        rows = torch.arange(len(both)).repeat_interleave(counts)
        torch.testing.assert_close(estimates[draw], measure(both[rows]))  # type: ignore[operator]
        torch.testing.assert_close(measure(both[:, 0], weights)[draw], estimates[draw, 0])  # type: ignore[operator]
    left_out = measure(both, leave_one_out(torch.arange(len(both))))  # type: ignore[operator]
    torch.testing.assert_close(left_out[2], measure(both[torch.arange(len(both)) != 2]))  # type: ignore[operator]


def test_what_cannot_be_ranked_is_refused() -> None:
    control, steered = case()
    with pytest.raises(ValueError, match="too few"):
        promotion_table(control[:3], steered[:3])
    with pytest.raises(ValueError, match=r"\[n, 2\]"):
        promotion_table(control, steered[:, :1])
    steered[4, 1] = torch.nan
    for measure in (promotion_table, sorted_curves):
        with pytest.raises(ValueError, match="row 4 is NaN or infinite"):
            measure(control, steered)
    for measure in (margin, preference, auc, cohens_d):  # a comparison with NaN would pass for a loss, or a tie
        with pytest.raises(ValueError, match="row 4 is NaN"):
            measure(steered)


@pytest.mark.parametrize("skewed", [False, True])
def test_interval_of_the_margin_covers_the_truth(skewed: bool) -> None:
    """50 prompts, as in the paper; 2,000 runs, since 500 leave the coverage itself uncertain by 2 points."""
    hits, runs = 0, 2000
    for run in range(runs):
        g = torch.Generator().manual_seed(run)
        prompt, normal, uniform = (
            torch.randn(50, generator=g),
            torch.randn(50, generator=g),
            torch.rand(50, 2, generator=g),
        )
        apart = 0.4 - (0.15 * (2 + uniform.log().sum(1)) if skewed else 0.3 * normal)
        ll = torch.stack([prompt - 1.5, prompt - 1.5 - apart], 1)
        (margin,) = behaviour_estimates({"margin": (ll[:, :1] - ll[:, 1:]).double()}, None)["margin"]
        hits += margin.low <= 0.4 <= margin.high
    assert 0.93 <= hits / runs <= 0.97


def test_the_page_prints_what_it_says_of_a_swap(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/likelihood.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(block, {})
    printed = [line.removeprefix("# ") for line in block.splitlines() if line.startswith("# ")]
    assert capsys.readouterr().out.splitlines() == printed
    assert len(printed) == 4


def test_the_page_names_only_what_a_report_has() -> None:
    page = (ROOT / "docs/likelihood.md").read_text(encoding="utf-8")
    reported = {*BehaviourEffect.headline, *BehaviourEffect.also, "reference_kl", "perplexity_ratio"}
    named = re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE)
    assert {name for cell in named for name in re.findall(r"`(\w+)`", cell)} <= reported
    assert "The paper's table, and beside it" not in page  # no report of `test` has it
