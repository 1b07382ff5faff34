"""What the fidelity study estimates: declared kinds, known values, ranges of random draws, versions of its parts."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_steer.metrics import anisotropy as measures
from lightning_steer.metrics.drift import TextDrift, drift_estimates, entanglement
from lightning_steer.metrics.likelihood import sorted_curves
from lightning_steer.statistics import estimate, jackknife
from lightning_steer.statistics.estimate import BY_DEFINITION, Estimate
from lightning_steer.statistics.kinds import Mean
from lightning_steer.studies.fidelity import anisotropy, behaviours, ground_truth, runs, sweep
from lightning_steer.studies.fidelity import study as command
from lightning_steer.studies.fidelity.planted import EFFECTS
from lightning_steer.studies.fidelity.settings import NARROW
from lightning_steer.studies.mera import __main__ as mera

ROOT = Path(__file__).parents[1] / "lightning_steer"
STRENGTHS = (-1.0, 0.0, 1.0)
TERM = torch.arange(12).repeat_interleave(5)


def scores(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unsteered scores ``[60, 3]``, and those at :data:`STRENGTHS`, at 0 with a rounding error."""
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(60, 3, generator=g)
    steered = base + torch.tensor(STRENGTHS)[:, None, None] * torch.randn(12, 3, generator=g)[TERM]
    return base, steered + 1e-6 * torch.randn(3, 60, 3, generator=g)


def drift(seed: int = 0, edits: int = 3) -> TextDrift:
    g = torch.Generator().manual_seed(seed)
    kl = torch.rand(edits, 20, 30, generator=g)
    kl[1] = 1e-7
    kl[:, :, 25:] = math.nan
    base = -30 - torch.rand(20, generator=g)
    return TextDrift(kl, base, base - torch.rand(edits, 20, generator=g), torch.full((20,), 25))


def same(estimate: Estimate, other: Estimate) -> bool:
    return all(a == b or a == pytest.approx(b, nan_ok=True) for a, b in zip(estimate, other, strict=True))


def test_every_column_of_a_sweep_has_the_interval_of_its_kind_over_terms() -> None:
    base, steered = scores()
    rows = sweep.along(base, steered, STRENGTHS)
    estimates = sweep.estimates_along(rows, TERM, STRENGTHS)
    kinds = {"p_anti": Mean(0, 1), "collateral": Mean(0, 1), "fidelity": Mean(-1, 1), "margin_change": Mean()}
    for name, kind in (kinds | {"pattern_shares": Mean(-2, 2), "pattern_nats": Mean()}).items():
        expected = kind.estimate(rows[name].numpy(), TERM.numpy())
        assert all(same(estimates[name][i], expected[i]) for i in (0, 2)), name
    assert rows.keys() - {"stereotypical", "related", "stereotypical_before", "related_before"} <= estimates.keys()
    assert {"ss", "lms", "icat", "icat_change"} <= estimates.keys()
    assert all((e.n, e.clusters) == (60, 12) for column in estimates.values() for e in column)


def test_a_pattern_may_be_as_large_as_it_can_be() -> None:
    base, steered = torch.tensor([[0.0, -1, 1]]).expand(60, 3), torch.tensor([[1.0, -1, 0]]).expand(60, 3)
    rows = sweep.along(base, torch.stack([steered]), (1.0,))
    assert rows["pattern_shares"].unique().tolist() == [2]
    pattern = sweep.estimates_along(rows, TERM, (1.0,))["pattern_shares"][0]
    assert pattern.high == 2
    assert pattern.low < 2  # twelve terms do not prove that all others are alike


def test_what_the_unsteered_model_is_beside_itself_is_known() -> None:
    base, steered = scores()
    estimates = sweep.estimates_along(sweep.along(base, steered, STRENGTHS), TERM, STRENGTHS)
    moved = ("intended", "opposed", "collateral", "fidelity", "margin_change", "unrelated_change", *sweep.PATTERN)
    for name in (*moved, "ss_change", "icat_change", "icat_lms_part", "icat_ss_part"):
        zero = estimates[name][1]
        assert (zero.value, zero.how, zero.n, zero.clusters) == (0, BY_DEFINITION, 60, 12), name
        assert math.isnan(zero.low)
        assert math.isnan(zero.high)
        assert estimates[name][0].low < estimates[name][0].high
    for name in ("p_stereotype", "ss", "icat"):
        assert estimates[name][1].low < estimates[name][1].value < estimates[name][1].high
    assert sweep.plain(estimates["fidelity"])[0][0] == estimates["fidelity"][0].value


def test_drift_of_neutral_text_has_the_intervals_of_drift() -> None:
    drifts = drift()
    estimates, expected = sweep.drift_of(drifts, STRENGTHS), drift_estimates(drifts)
    assert estimates.keys() == expected.keys() == sweep.UNSTEERED_DRIFT.keys()
    for name, column in estimates.items():
        for i in (0, 2):
            assert same(Estimate(*column[i]), expected[name][i])
        assert column[1][0] == (1 if name == "perplexity_ratio" else 0)
        assert column[1][-1] == BY_DEFINITION
    assert estimates["reference_kl"][0][3] == 20
    assert estimates["reference_kl_p95"][0][3:5] == [20 * 25, 20]


def test_differences_may_be_as_large_as_they_can_be() -> None:
    """The base model's gain and the other's loss, undone by a variant: 4 in every row, of what lies in [-1, 1]."""
    n, rows = 60, {}
    for variant in anisotropy.VARIANTS:
        sign = 1.0 if variant == anisotropy.PLAIN else -1.0
        for model, value in (("base", sign), ("tuned", -sign)):
            columns = {name: torch.full((n,), value, dtype=torch.float64) for name in anisotropy.OUTCOMES}
            columns |= {name: (columns[name] + 1) / 2 for name in ("intended", "collateral")}
            columns["pattern_shares"] *= 2
            rows[f"{model}/2", "1", variant] = columns
    gap = anisotropy.gap(rows, "tuned", "2", "1", TERM)
    assert gap["fidelity"]["gap"]["plain"][:1] + gap["fidelity"]["gap"]["plain"][2:3] == [2, 2]
    for variant, explained in gap["fidelity"]["explained"].items():
        assert (explained[0], explained[2]) == (4, 4), variant
        assert explained[1] < 4
    differences = anisotropy.effects(rows, "base/2", "1", TERM)["differences"]
    for explained in differences.values():
        assert {name: explained[name][0] for name in anisotropy.OUTCOMES} == {
            "fidelity": -2, "intended": -1, "collateral": -1, "pattern_shares": -4, "pattern_nats": -2
        }  # fmt: skip
        assert explained["intended"][1] == -1
        assert explained["pattern_shares"][1] == -4


def test_measures_of_the_stream_are_jackknifed_over_groups_of_texts_less_their_bias() -> None:
    g = torch.Generator().manual_seed(0)
    text = torch.arange(120).repeat_interleave(4)
    h = torch.randn(480, 8, generator=g) * torch.linspace(0.3, 2, 8) + torch.randn(120, 8, generator=g)[text]
    shape = anisotropy.shape(h, text)
    group = (text % 40).numpy()
    for name, (low, high) in {
        "cosine": (-1, 1), "centred_cosine": (-1, 1), "participation_ratio": (1, 8), "top_share": (0, 1)
    }.items():  # fmt: skip
        measure = getattr(measures, name)
        whole = np.array([float(measure(h))])
        parts = np.array([[float(measure(h[torch.from_numpy(group != group_number)]))] for group_number in range(40)])
        value, least, most = jackknife.jackknife(whole, parts, low, high, debias=True)
        assert shape[name][:3] == pytest.approx((value[0], least[0], most[0]))
        assert shape[name].value != pytest.approx(whole[0], abs=1e-12)
        assert (shape[name].n, shape[name].clusters, shape[name].how) == (480, 40, "jackknife-t over clusters")


def test_entanglement_has_the_jackknife_over_prompts() -> None:
    g = torch.Generator().manual_seed(0)
    task = torch.arange(3).repeat_interleave(15)
    before, after = (torch.rand(45, generator=g, dtype=torch.float64).round() for _ in range(2))
    entangled = runs.entangled(before, after, task)
    left = []
    for i in range(45):
        others = torch.arange(45) != i
        left.append([float(entanglement(before[others], after[others], task[others]))])
    value, low, high = jackknife.jackknife(np.array([float(entanglement(before, after, task))]), np.array(left), 0, 1)
    assert entangled[:3] == pytest.approx((value[0], low[0], high[0]))
    assert (entangled.n, entangled.clusters) == (45, None)
    still = runs.entangled(before, before, task)
    assert still.value == still.low == 0 < still.high  # 45 prompts without a change do not prove that there is none


def test_the_random_band_of_the_likelihood_figure_is_the_range_of_the_draws() -> None:
    g = torch.Generator().manual_seed(0)
    control, drawn = torch.randn(10, 2, generator=g), torch.randn(7, 10, 2, generator=g)
    curves = np.array([sorted_curves(control, draw).steered.tolist() for draw in drawn])
    figure = np.array(behaviours.by_chance_figure(control, drawn))
    np.testing.assert_allclose(figure, [curves.min(0), curves.max(0)])


def test_a_value_without_an_interval_is_neither_held_nor_missed() -> None:
    known = Estimate(0.0, math.nan, math.nan, 60, 12, BY_DEFINITION)
    assert ground_truth.beside(known, 0.0)["inside"] is None
    wide = Estimate(0.1, 0.0, 0.2, 60, 12, "t over clusters (CR2)")
    assert [ground_truth.beside(wide, value)["inside"] for value in (0.0, 0.2, 0.21, -0.01)] == [
        True,
        True,
        False,
        False,
    ]


def test_parts_of_older_statistics_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for name in ("base", "tuned"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(name.encode())
    monkeypatch.setattr(anisotropy, "run", lambda models, scale: made.append("anisotropy") or {"kept": len(made)})
    argv = ["--quick", "--only", "anisotropy", "--out", str(tmp_path)]
    argv += ["--base", str(tmp_path / "base"), "--tuned", str(tmp_path / "tuned")]
    for expected in (1, 1):
        assert command.main(argv) == 0
        assert len(made) == expected
    part = tmp_path / "parts" / "anisotropy.json"
    settings = json.loads(part.read_text())["settings"]
    assert settings["statistics"] == estimate.VERSION
    monkeypatch.setattr(estimate, "VERSION", estimate.VERSION + 1)
    assert command.main(argv) == 0
    assert len(made) == 2
    old = {key: value for key, value in settings.items() if key != "statistics"}  # as versions before the number wrote
    part.write_text(json.dumps({"settings": old, "kept": 0}))
    assert command.main(argv) == 0
    assert len(made) == 3


def test_every_part_names_the_statistics_that_made_it(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    options = command.arguments(["--out", str(tmp_path)])
    parts = command.parts(options, dict.fromkeys(("base", "tuned", *NARROW, *EFFECTS), tmp_path))
    assert len(parts) > 50
    assert {settings["statistics"] for settings, _ in parts.values()} == {estimate.VERSION}


def test_parts_of_the_mera_study_do_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    settings, part = mera.part_settings(tmp_path, ["mmlu_high_school"], (3, 2, 1)), tmp_path / "part.json"
    part.write_text(json.dumps({"settings": settings, "results": {}}))
    assert mera._done(part, mera.part_settings(tmp_path, ["mmlu_high_school"], (3, 2, 1)))
    monkeypatch.setattr(estimate, "VERSION", estimate.VERSION + 1)
    assert not mera._done(part, mera.part_settings(tmp_path, ["mmlu_high_school"], (3, 2, 1)))
    old = {key: value for key, value in settings.items() if key != "statistics"}
    part.write_text(json.dumps({"settings": old, "results": {}}))
    assert not mera._done(part, settings)


def test_no_percentile_of_draws_is_taken_for_an_interval() -> None:
    sources = [*(ROOT / "studies" / "fidelity").glob("*.py"), *(ROOT / "report").glob("fidelity*.py")]
    assert len(sources) > 10
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"quantile|percentile|0\.975|0\.025,|95 % of|\(95 %\)|bootstrap", text), path.name
