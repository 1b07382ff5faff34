"""The fidelity page and its figures from parts made by hand: ranges of random directions, rank p-values, footnotes."""

import math
from typing import Any

import numpy as np
import pytest

from lightning_steer.statistics.estimate import BY_DEFINITION
from lightning_steer.studies.fidelity import document as fidelity
from lightning_steer.studies.fidelity import overview as fidelity_glance
from lightning_steer.studies.fidelity import tables as fidelity_tables

STRENGTHS = [-1.0, 0.0, 1.0]
DRAWS = 20
NONE = "none: no interval is known to hold for a normaliser of two extremes"
T = "t over clusters (CR2)"


def estimate(value: float, reach: float | None = 0.05, how: str = T, n: int = 60, clusters: int | None = 12) -> list:
    """As a part keeps it."""
    ends = [None, None] if reach is None else [round(value - reach, 9), round(value + reach, 9)]
    return [value, *ends, n, clusters, how]


def known(value: float = 0.0) -> list:
    return estimate(value, None, BY_DEFINITION)


def draws(largest: float) -> list[list[float]]:
    """Twenty draws at one positive strength, -0.19 steps below the largest."""
    return [[largest - 0.01 * i] for i in range(DRAWS)]


def sweep(largest: float, value: float = 0.15) -> dict[str, Any]:
    """A value of ``value`` [-.05, +.05] at strengths -1 and 1, beside draws up to ``largest``."""
    shares = ("p_stereotype", "p_anti", "p_unrelated", "icat")
    moves = ("intended", "collateral", "fidelity", "icat_lms_part", "icat_ss_part", "icat_change")
    pattern = ("pattern_shares", "pattern_nats")
    steered = {name: [estimate(value)] * 3 for name in shares}
    steered |= {name: [estimate(value), known(), estimate(value)] for name in (*moves, *pattern)}
    random = {name: draws(largest) for name in (*shares, *moves, *pattern)}
    return {
        "arm": "base", "kind": "town", "strengths": STRENGTHS, "layers": [2], "steered": {"2": steered},
        "random": {"2": {"suppress": random, "promote": random}},
    }  # fmt: skip


def run() -> dict[str, Any]:
    names = (*fidelity_tables.HEADLINE, "reference_kl", "layer", "strength")
    fields = ("value", "low", "high", "n", "clusters", "how")
    metrics = {name: dict(zip(fields, estimate(0.2), strict=True)) for name in names}
    metrics["reference_kl"] |= {"n": 64, "clusters": None, "how": "jackknife-t over rows"}
    metrics["layer"]["value"], metrics["strength"]["value"] = 2, 1.5
    random = {"value": 0.01, "low": -0.1, "high": 0.17, "n": DRAWS, "p": 1 / 21, "how": "range of random draws"}
    return {"metrics": metrics, "baselines": {"baseline": metrics, "random_control": {"fidelity": random}}}


def behaviour() -> dict[str, Any]:
    names = ("margin_change", "positive_change", "negative_change", "preference", "auc", "cohens_d")
    estimates = {name: estimate(0.15, n=100, clusters=10) for name in names}
    quarter = [estimate(0.3, None, NONE, 100, 10), estimate(0.1, None, NONE, 100, 10)]
    curves = {name: [estimate(-0.1), known(), estimate(0.1)] for name in names}
    half = [0.0, 1.0]
    curve = {"control": half * 2, "steered": half * 2, "bands": [[0, 1], [0, 1]]}
    return {
        "model": "base", "behaviour": "myopia", "chat": False, "strengths": STRENGTHS, "curves": curves,
        "shown": {c: {"estimates": estimates, "table": [quarter] * 4, "figure": curve} for c in ("-1", "1")},
        "random": {"margin_change": draws(0.15)}, "random_figure": [[0.0] * 4, [1.0] * 4],
    }  # fmt: skip


def truth() -> dict[str, Any]:
    def row(c: float, reported: list, inside: bool | None) -> dict[str, Any]:
        return {"strength": c, "reported": reported, "true": 0.0, "inside": inside}

    moves = [row(-1.0, estimate(-0.1), False), row(0.0, known(), None), row(1.0, estimate(0.04), True)]
    shares = [row(-1.0, estimate(0.6), True), row(0.0, estimate(0.5), True), row(1.0, estimate(0.4), False)]
    return {
        "arm": "base", "kind": "town", "mass": {"mass_stereotype": [0.1, 0.2, 0.3]},
        "compared": {"share_change": moves, "fidelity": moves, "share": shares},
        "tone": {"harsh": {"reported": estimate(0.1), "true": 0.12, "inside": True}},
    }  # fmt: skip


def methods() -> dict[str, Any]:
    def run_of(fidelity: float) -> dict[str, Any]:
        mark = {"collateral": estimate(0.1), "intended": estimate(0.1), "fidelity": estimate(fidelity), "kl": 0.01}
        return {"equal effect": mark, "equal KL": mark}

    random = {f"random {i}": run_of(0.01 * i) for i in range(4)}
    return {"arm": "base", "kind": "town", "methods": {"mean difference": run_of(0.02), "LEACE": {}, **random}}


def anisotropy() -> dict[str, Any]:
    measure = {"cosine": estimate(0.4, n=900, clusters=40), "top_share": estimate(0.2, n=900, clusters=40)}
    variants = ("vector as long as base's", "vector without mean", "stream without top")
    one = {"gap": dict.fromkeys(("plain", *variants), estimate(0.2)),
           "explained": dict.fromkeys(variants, estimate(0.0))}  # fmt: skip
    outcome = {name: estimate(0.1) for name in ("fidelity", "pattern_nats")}
    causal = {f"2/{c}": {"differences": dict.fromkeys(variants, outcome)} for c in ("1", "-1")}
    return {
        "anisotropy": {name: {"2": measure} for name in ("base", "tuned")},
        "causal": dict.fromkeys(("base", "tuned"), causal),
        "gaps": {"tuned/2/1": {"fidelity": one, "pattern_nats": one}},
    }


PARTS = {
    "sweep-base-town": sweep(0.05),
    "truth-base-town": truth(),
    "methods-base-town": methods(),
    "run-base-town-suppress": run(),
    "anisotropy": anisotropy(),
    "behaviour-base-myopia-plain": behaviour(),
}


def rows(table: str, start: str) -> list[list[str]]:
    """Cells of the lines of a table that begin so."""
    return [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith(f"| {start}")]


@pytest.mark.parametrize(("largest", "seen"), [(0.1, 0), (0.0999, 1), (-0.5, 1), (0.3, 0)])
def test_the_pattern_is_seen_above_the_largest_of_the_draws_only(largest: float, seen: int) -> None:
    """The interval is [.1, .2]: a draw of .1 is not below it, though 97.5 % of the draws are."""
    page = fidelity_tables.pattern({"sweep-base-town": sweep(largest)})
    assert f"- base: seen in {seen} of 1 cells by shares and in {seen} of 1 by nats." in page
    assert "above 0 and above the largest of the 20 random directions; the rank p-value" in page
    ((*_, shares, random, p, _, _, _),) = rows(page, "base | town")
    assert shares == "0.150 [0.100, 0.200]"
    assert random == f"{largest - 0.095:.3f} ({largest - 0.19:.3f} to {largest:.3f})"
    assert float(p) == pytest.approx((1 + sum(value >= 0.15 for (value,) in draws(largest))) / 21, abs=1e-3)


def test_without_an_interval_no_pattern_is_seen() -> None:
    part = sweep(-0.5)
    part["steered"]["2"]["pattern_shares"] = [estimate(0.5, None, "none: a value is not finite")] * 3
    page = fidelity_tables.pattern({"sweep-base-town": part})
    assert "seen in 0 of 1 cells by shares and in 1 of 1 by nats" in page
    assert page.count("A value without an interval: a value is not finite.") == 1


@pytest.mark.parametrize(("largest", "dots"), [(0.15, 4), (0.1499, 0), (0.4, 4)])
def test_a_dot_says_that_a_random_direction_does_as_much(largest: float, dots: int) -> None:
    figure = fidelity.heatmap("town", [sweep(largest)])
    panels = [axes for axes in figure.axes if axes.get_title().startswith("base: ")]
    assert len(panels) == 2
    assert sum(len(axes.lines) for axes in panels) == dots  # strengths -1 and 1 of two measures
    assert panels[1].get_xlabel().replace("\n", " ") == "strength (dot: not above the largest of 20 random directions)"


def test_bands_of_random_directions_go_from_the_least_to_the_largest() -> None:
    x, low, high = fidelity._chance(sweep(0.05), "2", "fidelity")
    assert x.tolist() == [-1, 1]
    np.testing.assert_allclose([low, high], [[-0.14] * 2, [0.05] * 2])
    drawn = fidelity.figures(PARTS)
    labels = {name: {label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]}
              for name, figure in drawn.items()}  # fmt: skip
    for name in ("shares-town", "icat-town", "likelihood-myopia"):
        assert "range of 20 random directions" in labels[name], name
    assert "margin, range of 20 random directions" in labels["dose_response"]


def test_what_is_known_is_drawn_without_a_gap() -> None:
    ends = fidelity._ends([estimate(0.1), known(), estimate(0.2, None, NONE)])
    np.testing.assert_allclose(ends, [[0.1, 0, 0.2], [0.05, 0, math.nan], [0.15, 0, math.nan]])


def test_the_glance_shows_the_range_and_the_rank_of_the_fidelity() -> None:
    table = fidelity_glance.stereotypes(PARTS)
    (head, line) = rows(table, "stereotypes suppressed"), rows(table, "base | town")
    assert head[0][6:9] == ["fidelity", "20 random directions: median (range)", "rank p"]
    assert line[0][6:9] == ["0.200 [0.150, 0.250]", "0.010 (-0.100 to 0.170)", "0.048"]
    assert table.rstrip().endswith(f"Rows: 60 held-out examples in 12 target terms. Intervals: {T}.")
    promoted = fidelity_glance.behaviours(PARTS)
    assert rows(promoted, "behaviours promoted")[0][3:5] == ["the same, 20 random directions: median (range)", "rank p"]
    assert rows(promoted, "base, strength 1")[0][3:5] == ["0.055 (-0.040 to 0.150)", "0.095"]  # one draw reaches it
    assert "Rows: 100 held-out prompts in 10 topics." in promoted


def test_runs_are_counted_by_examples_and_terms_and_drift_by_texts() -> None:
    table = fidelity_tables.runs(PARTS)
    assert rows(table, "base-town")[0][-2:] == ["0.010 (-0.100 to 0.170)", "0.048"]
    assert "Rows: 60 examples in 12 target terms." in table
    assert "Rows: 64 neutral texts (reference_kl). Intervals: jackknife-t over rows." in table


def test_the_papers_table_stands_without_intervals_and_says_why_once() -> None:
    table = fidelity_tables.likelihood(PARTS)
    for line in rows(table, "base | myopia"):
        assert line[3:7] == ["0.300", "0.100", "0.300", "0.100"]
        assert line[7] == "0.150 [0.100, 0.200]"
    why = "A value without an interval: no interval is known to hold for a normaliser of two extremes."
    assert table.count(why) == 1


def test_what_is_known_by_definition_is_said_once_and_counts_for_nothing() -> None:
    table = fidelity_tables.planted(PARTS)
    assert [line[3] for line in rows(table, "base | town")[:3]] == [
        "-0.100 [-0.150, -0.050]",
        "0.000",
        "0.040 [-0.010, 0.090]",
    ]
    assert table.count("by definition") == 1
    assert "Intervals that hold the true value: share_change 1 of 2, fidelity 1 of 2, share 2 of 3." in table


def test_methods_stand_beside_the_draws_that_reach_the_same_drift() -> None:
    table = fidelity_tables.methods(PARTS)
    assert rows(table, "base | town | mean difference")[0][-2:] == ["0.020 [-0.030, 0.070]", "0.600"]  # 2 of 4 reach it
    assert rows(table, "base | town | LEACE")[0][3:] == ["not reached", "-", "not reached", "-", "-"]
    assert rows(table, "base | town | random")[0][-2:] == ["0.015 (0.000 to 0.030) of the 4 that reach it", "-"]


def test_gaps_that_have_no_interval_explain_nothing() -> None:
    part = anisotropy()
    gap = dict.fromkeys(part["gaps"]["tuned/2/1"]["fidelity"]["gap"], estimate(0.9, None, NONE))
    part["gaps"]["tuned/2/1"]["fidelity"] = {**part["gaps"]["tuned/2/1"]["fidelity"], "gap": gap}
    assert "In none of 1 cells" in fidelity_tables.causes({"anisotropy": part})
    assert "in 1 of 1 cells" in fidelity_tables.causes(PARTS)
    assert "Rows: 900 tokens in 40 groups of texts." in fidelity_tables.causes(PARTS)


def test_no_range_of_random_directions_is_called_an_interval() -> None:
    page = fidelity_tables.text(PARTS, list(fidelity.figures(PARTS)))
    assert page.count("95 %") == 1
    assert "Values stand before their 95 % intervals" in page
    for word in ("-, -", "None", "nan", "percentile"):
        assert word not in page
    for section in ("glance", "Runs", "unrelated suppressed", "anisotropy", "Reported and true", "Methods", "paper's"):
        assert section in page
    assert page.count("(1 + draws at least as large) / (1 + draws)") == 1
