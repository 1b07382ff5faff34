"""The crossed design: its worlds are as planted, its shortcuts give what the long way gives, its claims can fail."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef

from lightning_steer.probes.error_probe import logit_error
from lightning_steer.statistics.certificates import certify
from lightning_steer.studies.declaration import Contrast, declared_text
from lightning_steer.studies.mera.crossed import __main__ as command
from lightning_steer.studies.mera.crossed import (
    cell,
    certificate,
    declaration,
    jobs,
    networks,
    planted,
    priors,
    probes,
    results,
    shifts,
    tables,
    worlds,
)
from lightning_steer.studies.mera.crossed.declaration import Side
from lightning_steer.studies.mera.settings import DELTA, THRESHOLDS

WORLDS = {world.name: world for world in worlds.WORLDS}


def rows(name, n=20_000, seed=0, **more):
    return worlds.draw(WORLDS[name], n, torch.Generator().manual_seed(seed), **more)


# ---- worlds and networks


@pytest.mark.parametrize("name", WORLDS)
def test_answers_are_planted_as_said(name):
    drawn = rows(name, pull_share=1 / 3)
    torch.testing.assert_close(drawn.p.sum(1), torch.ones(len(drawn.y)))
    cues = drawn.x[:, 18:26]
    careless = WORLDS[name].rate(cues) >= 0.5
    right = drawn.p.argmax(1) == drawn.y
    assert right[~careless].double().mean() > 0.85
    assert right[careless].double().mean() < 0.55
    pulled = (drawn.p[careless].argmax(1) == 0).double().mean()
    assert pulled < 0.5 if WORLDS[name].illegible else pulled > 0.9


def test_a_tenth_of_the_steered_rows_has_the_pull_label_and_tied_cues_agree():
    assert (rows("one cue").y == 0).double().mean() == pytest.approx(0.1, abs=0.01)
    cues = rows("correlated cues").x[:, 18:26]
    assert (cues[:, 0] == cues[:, 1]).double().mean() == pytest.approx(0.9, abs=0.01)
    assert (cues[:, 0] == cues[:, 2]).double().mean() == pytest.approx(0.5, abs=0.02)


def test_where_no_direction_repairs_no_other_answer_is_better():
    drawn = rows("no direction repairs")
    cue = drawn.x[:, 18] > 0
    best = max(float((drawn.y[cue] == k).double().mean()) for k in range(3))
    assert float((drawn.p.argmax(1) == drawn.y)[cue].double().mean()) > best - 0.02


def test_a_network_learns_its_world_and_comes_back_from_its_file(tmp_path):
    world = WORLDS["one cue"]
    trained = networks.load(tmp_path, world, 3, steps=120)
    assert trained.gap < 0.25 * networks.train(world, 3, steps=2).gap
    again = networks.load(tmp_path, world, 3, steps=120)
    assert again.gap == trained.gap
    x = rows("one cue", 50).x
    assert torch.equal(again.network.answer(again.network.read(x)), trained.network.answer(trained.network.read(x)))
    assert networks.load(tmp_path, world, 4, steps=2).gap != networks.load(tmp_path, world, 5, steps=2).gap
    assert len(networks.gaps(tmp_path)) == 3


# ---- probes, directions, doses


@pytest.fixture(scope="module")
def few():
    """A design on a fixed nonlinear readout, with more dimensions than the rows fill."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(12, 12, generator=generator)

    def answer(h):
        return torch.tanh(h @ mix[:, :3]) * 3

    def part(n):
        h = torch.randn(n, 12, generator=generator) @ mix
        return cell.CellPart(h, torch.randint(3, (n,), generator=generator), answer(h))

    parts = cell.CellParts(part(200), part(60), part(60), part(90))
    error = 1 - parts.train.logits.double().softmax(-1)[torch.arange(200), parts.train.y]
    fitted = probes.fit(parts.train.h, error)
    return parts, answer, error, fitted, shifts.families(answer, parts.train.h, parts.train.y, error, fitted, 0)


def test_sigma_w_of_least_squares_is_the_covariance_direction_and_no_penalised_ones(few):
    *_, of = few
    along = {(f.probe, f.direction): f.along for f in of if f.dose == "adaptive"}

    def cosine(probe):
        both = along[probe, "Sigma w"], along[probe, "Cov(h, logit error)"]
        return float(torch.cosine_similarity(*both, dim=0).abs())

    assert cosine("lasso 0") == pytest.approx(1, abs=1e-9)
    assert cosine("lasso 0.1") < 1 - 1e-3
    assert cosine("ridge 100") < 1 - 1e-3


def test_shrinkage_leads_w_to_the_covariance_direction_of_standardised_states(few):
    parts, _, error, fitted, _ = few
    h = parts.train.h.double()
    x, scale = h - h.mean(0), h.std(0, correction=0)
    target = logit_error(error)
    aim = (x / scale).T @ (target - target.mean())
    cosines = [float(torch.cosine_similarity(p.weight * scale, aim, dim=0)) for p in fitted if p.kind == "ridge"]
    assert cosines == sorted(cosines)
    assert cosines[0] < 0.9 < 0.999 < cosines[-1]


@pytest.mark.parametrize("direction", shifts.DIRECTIONS)
def test_the_adaptive_dose_reaches_its_threshold_along_any_direction(few, direction):
    parts, _, _, fitted, of = few
    family = next(f for f in of if (f.probe, f.direction, f.dose) == ("ridge 1", direction, "adaptive"))
    probe = probes.best(fitted, "ridge", 1.0)
    h = parts.test.h.double()
    before = h @ probe.weight + probe.intercept
    amount = (h @ family.weight + family.offsets[3]).clamp_min(0)
    after = (h - amount[:, None] * family.along) @ probe.weight + probe.intercept
    limit = float(torch.tensor(THRESHOLDS[3]).double().logit())
    torch.testing.assert_close(after, before.clamp_max(limit), rtol=0, atol=1e-5)
    assert int((amount > 0).sum()) > 0
    weak = (h @ family.weight + family.offsets[0]).clamp_min(0)
    assert int((weak > 0).sum()) < len(weak)


def test_constant_doses_are_equally_long_in_every_direction(few):
    parts, _, error, _, of = few
    h = parts.train.h.double()
    length = float((h[error >= 0.5].mean(0) - h[error < 0.5].mean(0)).norm())
    constant = [f for f in of if f.dose == "constant"]
    assert len([f for f in constant if f.direction.startswith("random")]) == shifts.RANDOM
    for f in constant:
        assert float(f.along.norm()) == pytest.approx(length, rel=1e-6) or f.probe == "lasso 0.5"  # which is silent
        assert float(f.weight.norm()) == 0


def test_the_causal_gradient_is_that_of_the_mean_logit_error(few):
    parts, answer, *_ = few
    h, y = parts.train.h, parts.train.y

    def mean(h):
        p = answer(h).double().softmax(-1)[torch.arange(len(y)), y]
        return float((-p.logit()).mean())

    g = shifts.gradient(answer, h, y)
    step = 1e-2 * torch.eye(12)[4]
    assert float(g[4]) == pytest.approx((mean(h + step) - mean(h - step)) / 2e-2, abs=2e-3)


def test_many_candidates_at_once_are_each_by_itself_and_rows_that_stay_are_not_run(few, monkeypatch):
    parts, answer, _, _, of = few
    monkeypatch.setattr(shifts, "AT_ONCE", 1000)
    ran = []

    def counting(h):
        ran.append(len(h))
        return answer(h)

    picked = of[::9]
    labels = shifts.answers(counting, parts.test.h, parts.test.label, picked)
    moved = 0
    for f, family in enumerate(picked):
        for s in range(10):
            amount = (parts.test.h.double() @ family.weight + family.offsets[s]).clamp_min(0).float()
            moved += int((amount > 0).sum()) if bool((family.along != 0).any()) else 0
            expected = answer(parts.test.h - amount[:, None] * family.along.float()).argmax(-1)
            assert torch.equal(labels[f, s], expected)
    assert sum(ran) == moved < labels.numel()
    which = torch.full((len(picked), 1), 7)
    assert torch.equal(shifts.answers(answer, parts.test.h, parts.test.label, picked, which)[:, 0], labels[:, 7])


def test_fewer_rows_than_dimensions_are_fitted(few):
    parts, _, error, *_ = few
    wide = torch.cat([parts.train.h[:20], torch.randn(20, 40, generator=torch.Generator().manual_seed(1))], 1)
    for probe in probes.fit(wide, error[:20]):
        assert probe.weight.isfinite().all()


# ---- judging


def test_figures_of_answers_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    y, written = random.integers(3, size=200), random.integers(3, size=(4, 200))
    written[0] = 1
    test = cell.CellPart(torch.zeros(200, 2), torch.from_numpy(y), torch.randn(200, 3))
    result = cell.judged(test, torch.from_numpy(written))
    for k in range(4):
        assert float(result["balanced_accuracy"][k]) == pytest.approx(balanced_accuracy_score(y, written[k]))
        assert float(result["mcc"][k]) == pytest.approx(matthews_corrcoef(y, written[k]))
        assert float(result["accuracy"][k]) == pytest.approx((y == written[k]).mean())


def test_the_table_of_bounds_certifies_what_the_certificate_does():
    random = np.random.default_rng(1)
    changes = random.choice([-1, 0, 1], p=[0.04, 0.85, 0.11], size=(20, 3, 80)).astype(np.int8)
    best, yes = certificate.chosen(changes)
    for r in range(20):
        exact = certify(changes[r], -1, 1, delta=DELTA)
        assert yes[r] == (exact.chosen is not None)
        assert exact.lower[best[r]] >= exact.lower.max() - 0.005
    assert 0 < yes.sum() < 20


def test_a_certificate_finds_less_where_more_answers_change():
    few, with_churn = (certificate.by_effect("20 alike", 200, churn=churn) for churn in (0.05, 0.6))
    assert [point["effect"] for point in few] == [e for e in certificate.EFFECTS if abs(e) <= 0.05]
    few_found, many_found = (
        next(o for o in entries if o["effect"] == 0.05)["certified"] for entries in (few, with_churn)
    )
    assert few_found > 180
    assert many_found < 60


def test_false_certificates_keep_their_share_and_a_bound_that_is_none_is_caught(monkeypatch):
    monkeypatch.setattr(certificate, "EFFECTS", (0.0, 0.1))
    monkeypatch.setattr(certificate, "ROWS", 100)
    points = {(n, point["effect"]): point for n in certificate.SETS for point in certificate.by_effect(n, 500)}
    for name in certificate.SETS:
        assert points[name, 0.0]["false"] <= 0.025 * 500
        assert points[name, 0.1]["certified"] > 50 > points[name, 0.1]["false"]
    monkeypatch.setattr(certificate, "chosen", lambda c: (c.mean(-1).argmax(1), c.mean(-1).max(1) > 0.02))
    assert certificate.by_effect("20 alike", 200)[0]["false"] > 0.1 * 200


# ---- the declaration and its contrasts


def made(kind, network, spi, random=0.1):
    """A cell in which each probe has an R2 and every family an SPI of ``spi(probe, direction, dose)``."""
    names = [("lasso", p) for p in probes.PENALTIES]
    names += [("ridge", p) for p in probes.RIDGE] + [("logistic", p) for p in probes.LOGISTIC]
    families = []
    for kind_of, p in names:
        for direction in shifts.DIRECTIONS:
            for dose in shifts.DOSES:
                value = spi(f"{kind_of} {p:g}", direction, dose)
                figures = dict.fromkeys(("gain", "spi", "accuracy", "balanced_accuracy", "mcc"), value)
                of = {"probe": f"{kind_of} {p:g}", "r2": 1 / (1 + p), "direction": direction, "dose": dose}
                families.append(of | figures | {"certified": value > 0})
    plain = {"probe": "-", "r2": math.nan, "gain": 0.0, "dose": "constant", "certified": True, "spi": random,
             "accuracy": 0.5, "balanced_accuracy": 0.5, "mcc": 0.5}  # fmt: skip
    families += [{**plain, "direction": f"random {k}"} for k in range(20)]
    bias = {"certified": True, "spi": 0.5, "balanced_accuracy": 0.4}
    base = {"accuracy": 0.4, "balanced_accuracy": 0.4, "mcc": 0.4}
    key = results.Key(kind, network, "", 20)
    return key, {"base": base, "families": families, "controls": {"label bias, fitted": bias}}


def pattern(shift=0.0):
    def spi(probe, direction, dose):
        if direction == "w":
            return 0.0 if probe.startswith("lasso") else 0.6 + shift * (probe == "ridge 100")
        return 0.8 if dose == "adaptive" else 0.7

    return spi


def test_a_side_chooses_its_probe_by_its_rule():
    _, cell_made = made("a", "0", lambda probe, *_: {"lasso 0.5": 0.9, "ridge 10": 0.95}.get(probe, 0.1))
    assert results.chosen(cell_made, Side("w"))["probe"] == "lasso 0"
    assert results.chosen(cell_made, Side("w", rule="gain"))["probe"] == "lasso 0.5"
    assert results.chosen(cell_made, Side("w", path="any", rule="gain"))["probe"] == "ridge 10"
    assert results.chosen(cell_made, Side("w", path="ridge", rule="ridge 100"))["probe"] == "ridge 100"
    cell_made["families"][0] |= {"certified": False, "spi": 0.9}
    assert results.deployed(cell_made, cell_made["families"][0]) == 0
    assert results.deployed(cell_made, cell_made["families"][0], "mcc") == 0.4


def test_every_declared_contrast_is_computed_and_the_pattern_is_shown():
    cells = dict(made(f"kind {k}", str(n), pattern(0.02 * k + 0.01 * n)) for k in range(8) for n in range(2))
    for question in declaration.DECLARATION.questions:
        comparisons = declaration.QUESTIONS[question.name]
        by_contrast = {c.contrast.name: results.result(cells, c, len(comparisons)) for c in comparisons}
        assert all(math.isfinite(result.detectable) for result in by_contrast.values() if result.estimate.n > 2)
        if question.name == "Choice of the probe":
            by_contrast["and along Sigma w"] = by_contrast[
                "ridge 100 beats R2"
            ]  # the same SPI at every penalty has no ranks
            units = {c.contrast.name: results.units(cells, c) for c in comparisons}
            units["and along Sigma w"] = units["ridge 100 beats R2"]
            rows = tables.verdict_table(question, by_contrast, units).split("\n")[2:6]
            kinds = " ".join(map(tables.number, units["ridge 100 beats R2"]))
            assert f"| ridge 100 beats R2 | above 0 | 0.68 | 0.60 to 0.74 | {kinds} | < 0.0001 |" in rows[0]
            assert [row.split("|")[8].strip() for row in rows] == ["yes", "no", "no", "yes"]


def test_a_kind_of_world_counts_once_however_many_networks_it_has():
    cells = dict(made("many", str(n), pattern()) for n in range(9))
    cells |= dict([made("one", "0", lambda *_: 0.0)])
    by_kind = results.by_kind(cells, lambda cell_of_kind: results.value(cell_of_kind, Side("Sigma w")))
    assert by_kind == {"many": pytest.approx(0.8), "one": 0.0}


def test_the_smallest_effect_is_what_four_in_five_repeats_show():
    random, contrast = np.random.default_rng(0), Contrast("c", "d", "above")
    effects = [results.detectable(random.normal(0, 0.2, 8), contrast, 1) for _ in range(200)]
    effect = float(np.mean(effects))
    shown = [results.p_value(random.normal(effect, 0.2, 8), contrast) <= 0.05 for _ in range(2000)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.07)
    smallest = results.detectable(random.normal(0, 0.2, 8), contrast, 7)
    assert smallest > results.detectable(random.normal(0, 0.2, 800), contrast, 7) * 4


def test_false_claims_are_as_rare_as_promised():
    random = np.random.default_rng(2)
    for direction, mean, limit in (("above", 0.0, 0.0), ("differs from", 0.0, 0.0), ("within", 0.1, 0.1)):
        contrast = Contrast("c", "d", direction, limit)
        shown = [results.p_value(random.normal(mean, 0.05, 8), contrast) <= 0.05 for _ in range(2000)]
        assert np.mean(shown) < 0.07


def test_kinds_that_all_gave_the_same_number_show_nothing():
    assert results.p_value(np.zeros(8), Contrast("c", "d", "within", 0.05)) == 1
    assert results.p_value(np.full(8, 0.5), Contrast("c", "d", "above")) == 1


@pytest.mark.parametrize("kind", planted.KINDS)
def test_planted_patterns_are_found(kind):
    repeats = [planted.repeat(kind, seed) for seed in range(40, 43)]
    for repeat in repeats:
        if kind == "w repairs":
            assert repeat.w > 0.3
        elif kind == "filter":
            assert repeat.w < 0.1
            assert min(repeat.ridge, repeat.sigma) > 0.2
        else:
            assert repeat.sigma > repeat.constant + 0.3


def test_an_unknown_control_is_refused():
    with pytest.raises(ValueError, match="positive controls are w repairs, filter, dose, not 'x'"):
        planted.world("x", 0)


def test_the_document_declares_what_the_code_does_and_the_log_was_opened_under_it():
    docs = Path(__file__).parents[1] / "docs"
    log = [json.loads(line) for line in (docs / "mera-opened.jsonl").read_text().split("\n") if line]
    for entry, draws, declared in zip(log, ("verdict", "priors"), (declaration, priors), strict=True):
        assert declared_text(declared.DECLARATION) in (docs / "mera.md").read_text()
        assert (entry["draws"], entry["declaration"]) == (draws, declared.DECLARATION.digest())


# ---- the command


def test_verdict_draws_are_others_than_those_that_were_looked_at():
    explored, verdict_keys = (set(jobs.keys(verdict)) for verdict in (False, True))
    assert not explored & verdict_keys
    assert not {key.draw for key in verdict_keys} & {*range(2), *range(10, 15)}
    assert not {key.network for key in verdict_keys if not key.task} & {key.network for key in explored}
    assert len({key.file for key in verdict_keys}) == len(verdict_keys)
    for kind in WORLDS:
        assert len({key.network for key in verdict_keys if key.kind == kind}) == 3
        assert len({key.draw for key in verdict_keys if key.kind == kind}) == 5


@pytest.fixture
def models(tmp_path):
    for name in ("base", "tuned"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    return ["--models-in", str(tmp_path)]


def test_a_changed_declaration_cannot_open_the_draws_again(models, tmp_path, monkeypatch, capsys):
    log, argv = tmp_path / "opened.jsonl", [*models, "--verdict", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(jobs, "keys", lambda _verdict: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):  # opened, and stopped before the first cell
        command.main([*argv, "--log", str(log)])
    (entry,) = [json.loads(line) for line in log.read_text().split("\n") if line]
    assert entry["declaration"] == declaration.DECLARATION.digest()
    assert entry["command"][-1].startswith("commit ")
    monkeypatch.setattr(declaration, "DECLARATION", replace(declaration.DECLARATION, tried_before=()))
    assert command.main([*argv, "--log", str(log)]) == 2
    assert "'verdict' were opened under declaration" in capsys.readouterr().err


def test_preparing_trains_networks_and_opens_no_draws(models, tmp_path, monkeypatch):
    ran = {}
    monkeypatch.setattr(command, "run", lambda todo, *_: ran.update(todo))
    log = tmp_path / "opened.jsonl"
    assert command.main([*models, "--prepare", "--out", str(tmp_path / "out"), "--log", str(log)]) == 0
    assert not log.exists()
    called = {job[0] for job in ran.values()}
    assert called == {jobs.repeats, jobs.gap, certificate.by_effect}
    assert sum(job[0] is jobs.gap for job in ran.values()) == 3 * len(WORLDS)


@pytest.mark.parametrize(
    "wrong",
    [["--verdict", "--small"], ["--verdict", "--prepare"], ["--verdict", "--kinds", "one cue"], ["--processes", "0"]],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(SystemExit):
        command.arguments(wrong)


def test_a_missing_model_is_named(tmp_path, capsys):
    assert command.main(["--models-in", str(tmp_path)]) == 2
    assert "there is no model in" in capsys.readouterr().err


def test_the_design_runs_and_writes_its_tables(tmp_path, models, monkeypatch, capsys):
    """On one small kind of world, in this process."""
    from tests.test_mera_study import Here

    monkeypatch.setattr(command, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(certificate, "REPEATS", 200)
    monkeypatch.setattr(certificate, "ROWS", 40)
    monkeypatch.setattr(certificate, "EFFECTS", (0.0, 0.1))
    monkeypatch.setattr(planted, "CALIBRATION", 40)
    monkeypatch.setattr(planted, "TRAIN", 300)
    argv = [*models, "--out", str(tmp_path / "out"), "--small", "--kinds", "weak cues", "no direction repairs"]
    assert command.main(argv) == 0
    text = capsys.readouterr().out
    folder = tmp_path / "out" / "small"
    assert {path.name for path in folder.glob("spi_against_r2.*")} == {"spi_against_r2.png", "spi_against_r2.svg"}
    for table in ("SPI deployed (certified)", "random directions", "certificate by true effect", "MCC gained"):
        assert f"| {table} |" in text
    before = {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    monkeypatch.setattr(jobs, "run_cell", None)
    assert command.main(argv) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
