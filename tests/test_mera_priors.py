"""The second design of MERA: the share of the pull label varies, in all rows; its claims can fail."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT

from lightning_steer.statistics.bounds import ExactPaired
from lightning_steer.studies.declaration import Contrast
from lightning_steer.studies.mera import settings
from lightning_steer.studies.mera.crossed import __main__ as command
from lightning_steer.studies.mera.crossed import (
    certificate,
    declaration,
    jobs,
    networks,
    priors,
    results,
    summary,
    worlds,
)
from tests.test_mera_crossed import made
from tests.test_mera_study import Here

ABOVE, WITHIN = Contrast("c", "d"), Contrast("c", "d", "within", 0.05)


def cells(spi):
    """A design in which a family has an SPI of ``spi(share, probe, direction)``, certified where it is above 0."""
    return {
        key: made(key.kind, str(key.network), lambda probe, direction, _, key=key: spi(key.share, probe, direction))[1]
        for key in priors.design()
    }


def test_its_networks_and_draws_are_others_than_those_that_were_looked_at():
    first = [key for verdict in (False, True) for key in jobs.keys(verdict)]
    of = priors.design()
    assert not {str(key.network) for key in of} & {key.network for key in first}
    assert not {key.draw for key in of} & {key.draw for key in first}
    assert len({key.file for key in of}) == len(of) == 6 * 3 * 3 * 5
    assert "no direction repairs" not in {key.kind for key in of}


@pytest.mark.parametrize("share", priors.SHARES)
def test_the_share_of_the_pull_label_holds_in_every_part(share):
    world = next(world for world in worlds.WORLDS if world.name == "weak cues")
    trained = networks.train(world, 3, steps=2)
    parts, _ = jobs.drawn(trained, world, results.Key(world.name, "3", "", 1), 2000, share)
    for part in parts:
        assert (part.y == 0).double().mean() == pytest.approx(share, abs=0.035)


def test_only_the_families_of_its_methods_are_run(monkeypatch):
    world = next(world for world in worlds.WORLDS if world.name == "weak cues")
    trained = networks.train(world, 3, steps=2)
    monkeypatch.setattr(networks, "load", lambda *_: trained)
    threads = torch.get_num_threads()
    result = priors.run_cell(priors.Prior(world.name, 0.2, 3, 1), None)
    torch.set_num_threads(threads)
    assert {f["direction"].split()[0] for f in result["families"]} == {"w", "Sigma", "random"}
    for method in priors.METHODS:
        for figure in ("deployed", "undeployed"):
            assert math.isfinite(priors.spi(result, method, figure))


def test_the_best_random_direction_is_chosen_by_gain_and_not_by_test_rows():
    _, cell_made = made("one cue", "0", lambda *_: 0.0)
    lucky, chosen = [f for f in cell_made["families"] if f["direction"] in ("random 3", "random 7")]
    lucky["spi"], chosen["gain"], chosen["spi"] = 0.9, 0.2, 0.3
    assert priors.spi(cell_made, "best of 20 random by gain", "deployed") == 0.3
    assert priors.spi(cell_made, "mean of 20 random", "deployed") == pytest.approx((18 * 0.1 + 0.9 + 0.3) / 20)


def test_what_is_not_certified_is_0_only_where_it_is_deployed():
    _, cell_made = made("one cue", "0", lambda *_: -0.2)
    assert priors.spi(cell_made, "w, probe by R2", "deployed") == 0
    assert priors.spi(cell_made, "w, probe by R2", "undeployed") == -0.2


def test_a_planted_fall_is_shown_and_no_fall_is_not():
    (fall, *_) = priors.QUESTIONS["Prior"]
    falling = priors.units(cells(lambda share, *_: 0.9 if share < 0.3 else 0.4), fall)
    assert falling == pytest.approx([0.5] * 6)
    assert 3 * priors.p_value(falling, fall.contrast) < 0.05
    level = priors.units(cells(lambda *_: 0.9), fall)
    assert priors.p_value(level, fall.contrast) == 1


def test_that_r2_repairs_nothing_can_fail():
    (tenth, *_, third) = priors.QUESTIONS["R2 repairs nothing, undeployed"]
    harm = cells(lambda share, *_: -0.3 if share == 0.1 else 0.0)
    assert priors.p_value(priors.units(harm, tenth), tenth.contrast) == 1
    assert priors.p_value(priors.units(harm, third), third.contrast) == 1 / 64


def test_changing_nothing_is_chosen_before_many_a_gain_as_the_page_says():
    bound = ExactPaired(resolution=0.005).at(np.array([0, 30, 31]), np.array([0, 15, 15]), 250, settings.DELTA / 10)
    assert bound[0] == bound[1] < bound[2]
    changes = np.zeros((1, 10, 250), dtype=np.int8)
    changes[:, 1:, :30], changes[:, 1:, 30:45] = 1, -1
    assert certificate.chosen(changes)[0] == 0
    changes[:, 1, 45] = 1
    assert certificate.chosen(changes)[0] == 1


def test_the_page_limits_the_verdicts_as_the_study_does():
    written = " ".join((ROOT / "docs" / "mera.md").read_text(encoding="utf-8").split())
    contrasts = sum(map(len, priors.QUESTIONS.values()))
    assert contrasts == 15
    assert min(0.5**4, contrasts * 0.5 ** len(priors.KINDS)) > 0.05  # four kinds; all contrasts
    for limit in (priors.SIGNS, priors.NO_OP):
        assert limit in written


def test_kinds_that_differ_in_the_probes_rows_alone_share_their_networks():
    wide, fewer = (networks.train(world, 3, steps=2) for world in worlds.WORLDS if world.width == 256)
    for parameter, other in zip(wide.network.parameters(), fewer.network.parameters(), strict=True):
        assert torch.equal(parameter, other)
    assert summary.networks({"wide": wide.gap, "fewer": fewer.gap}).startswith("Small networks: 1,")


def test_the_sign_test_counts_kinds_beyond_the_limit():
    assert priors.p_value(np.full(6, 0.1), ABOVE) == 1 / 64
    assert priors.p_value(np.array([0.9] * 5 + [0.0]), ABOVE) == 7 / 64
    assert priors.p_value(np.array([0.9] * 5 + [0.0]), replace(ABOVE, limit=0.9)) == 1
    with pytest.raises(ValueError, match="are 'above' or 'within', not 'below'"):
        priors.p_value(np.ones(6), Contrast("c", "d", "below"))


def test_the_sign_test_keeps_its_level_where_values_are_skewed():
    random = np.random.default_rng(0)
    median = np.exp(0.0)
    p = [priors.p_value(np.exp(random.normal(0, 2, 6)) - median, ABOVE) for _ in range(4000)]
    assert np.mean(np.array(p) <= 1 / 64) == pytest.approx(1 / 64, abs=0.007)


def test_the_smallest_effect_is_what_four_in_five_repeats_show():
    """Of fresh units, not of those that were seen: on these the test turns on the smallest, which repeats itself."""
    random = np.random.default_rng(0)
    effect = np.mean([priors.detectable(random.normal(0, 0.2, 6), ABOVE, 3) for _ in range(200)])
    shown = [3 * priors.p_value(random.normal(effect, 0.2, 6), ABOVE) <= 0.05 for _ in range(2000)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.06)
    limit = np.mean([priors.detectable(random.normal(0, 0.01, 6), WITHIN, 3) for _ in range(200)])
    within = Contrast("c", "d", "within", float(limit))
    shown = [3 * priors.p_value(random.normal(0, 0.01, 6), within) <= 0.05 for _ in range(2000)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.06)
    assert priors.detectable(random.normal(0, 0.2, 6), ABOVE, 4) == math.inf  # of four claims, 6 kinds show none


def test_it_opens_once_writes_its_tables_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(jobs, "gap", lambda *_: 0.001)
    monkeypatch.setattr(priors, "run_cell", lambda key, _: made(key.kind, "0", lambda *_: 0.1 + key.share)[1])
    log = tmp_path / "opened.jsonl"
    argv = ["--priors", "--out", str(tmp_path / "out"), "--log", str(log), "--models-in", str(tmp_path)]
    assert command.main(argv) == 0
    output = capsys.readouterr().out
    assert "SPI undeployed, by share of the pull label" in output
    assert priors.SIGNS in output
    assert priors.NO_OP in output
    assert "| w, ridge 100 | above 0 | -0.23 | -0.23 to -0.23 |" in output
    monkeypatch.setattr(priors, "run_cell", None)
    assert command.main(argv) == 0
    (entry,) = [json.loads(line) for line in log.read_text().split("\n") if line]
    assert (entry["draws"], entry["declaration"]) == ("priors", priors.DECLARATION.digest())
    monkeypatch.setattr(priors, "DECLARATION", replace(priors.DECLARATION, tried_before=()))
    assert command.main(argv) == 2
    assert "'priors' were opened under declaration" in capsys.readouterr().err


def test_the_two_designs_do_not_mix():
    for other in ("--verdict", "--prepare", "--small"):
        with pytest.raises(SystemExit):
            command.arguments(["--priors", other])
    assert priors.DECLARATION.digest() != declaration.DECLARATION.digest()
