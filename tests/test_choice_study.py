"""The study of choices under several promises: it chooses as the library does, and its page says what holds."""

import numpy as np
import pytest

from lightning_steer.statistics.promises import Promise, choose
from lightning_steer.studies.coverage.choices import page
from lightning_steer.studies.coverage.choices.__main__ import main
from lightning_steer.studies.coverage.choices.cells import EACH, LIMIT, ChoiceCell, choice_cells, outcome, true_means
from lightning_steer.studies.coverage.promises import K, latent


@pytest.mark.parametrize("clustered", [False, True])
def test_the_study_chooses_as_the_library_does(clustered: bool) -> None:
    """From the same rows: the same settings are certified and the same one is chosen."""
    cell, harms, delta, random = ChoiceCell(0.5, 100, clustered), 2, 0.05, np.random.default_rng(1)
    each = EACH if clustered else 1
    means, limits = true_means("growing", harms), np.array([0.0] + [-LIMIT] * harms)
    z = latent(random, (12, K, 1 + harms), 100, np.float32(0.5), each)
    counts = cell.counts(z, means)
    passed, observed = cell.certified(counts, limits, delta / K), counts @ cell.values / 100
    some = 0
    for table in range(len(z)):
        promises = []
        for j, limit in enumerate(limits):
            values = np.stack([np.repeat(cell.values, counts[table, k, j]) for k in range(K)])
            if clustered:  # rows whose mean over a cluster is that value
                whole = np.rint(values * EACH).astype(int)[..., None]
                rises, falls = np.arange(EACH) < whole, np.arange(EACH) < -whole
                changes = (rises.astype(int) - falls).reshape(K, -1)
                promises.append(Promise(f"m{j}", changes, -1, 1, limit, np.repeat(np.arange(100), EACH)))
            else:
                promises.append(Promise(f"m{j}", np.rint(values).astype(int), -1, 1, limit))
        choice = choose(promises, delta)
        assert (np.stack([promised.certified for promised in choice.kept], 1) == passed[table]).all()
        allowed = passed[table].all(1)
        mine = int(np.where(allowed, observed[table, :, 0], -np.inf).argmax()) if allowed.any() else None
        assert mine == choice.chosen
        some += mine is not None
    assert some >= 4


def test_true_means_are_those_of_the_tables() -> None:
    random = np.random.default_rng(0)
    for truth, clustered in (("growing", False), ("at the limits", True)):
        cell, means = ChoiceCell(0.9, 250, clustered), true_means(truth, 3)
        z = latent(random, (60, K, 4), 250, np.float32(0.9), EACH if clustered else 1)
        observed = (cell.counts(z, means) @ cell.values / 250).mean(0)
        assert np.abs(observed - means).max() < 0.05
    keeps = (true_means("growing", 2) > np.array([0, -LIMIT, -LIMIT])).all(1)
    assert keeps.tolist() == [True] * 5 + [False] * 5
    assert not (true_means("at the limits", 4) > np.array([0] + [-LIMIT] * 4) + 1e-12).all(1).any()


def test_what_is_counted() -> None:
    means, limits = np.array([[0.1, 0.0], [0.4, -0.3]]), np.array([0.0, -LIMIT])
    observed = np.array([[[0.2, 0], [0.5, 0]]] * 4)
    passed = np.array([[[True, True], [False, True]], [[True, True], [True, True]], [[False, True], [False, True]],
                       [[True, False], [True, True]]])  # fmt: skip
    false, good, benefit, excess = outcome(passed, observed, means, limits)
    assert (false, good) == (2, 1)
    assert benefit == pytest.approx(0.1)
    assert excess == pytest.approx(0.3)


def test_the_designs() -> None:
    cells = choice_cells()
    assert len(cells) == len({cell.design for cell in cells}) == 18
    assert {cell.units for cell in cells} == {100, 250, 1000}


def test_the_study_goes_on_where_it_stopped(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--sets", "30", "--units", "100", "--processes", "1", "--out", str(tmp_path), "--page",
             str(tmp_path / "a.md")]  # fmt: skip
    assert main(argv) == 0
    first = (tmp_path / "a.md").read_text()
    parts = sorted(tmp_path.glob("30-*/*.json"))
    assert len(parts) == 6
    times = [part.stat().st_mtime_ns for part in parts[1:]]
    parts[0].unlink()
    assert main(argv) == 0
    assert (tmp_path / "a.md").read_text() == first
    assert [part.stat().st_mtime_ns for part in parts[1:]] == times
    assert "72 of 72 designs hold" in capsys.readouterr().out


def test_a_design_that_fails_is_named() -> None:
    figures = {"false": 0.0, "good": 0.0, "benefit": 0.0, "excess": 0.0}
    row = {"truth": "at the limits", "harms": 2, "correlation": 0.5, "units": 100, "clustered": False, "delta": 0.01,
           "sets": 2000, "certified": {**figures, "false": 60.0}, "hoeffding": figures}  # fmt: skip
    good = {**row, "truth": "growing", "delta": 0.05, "certified": {**figures, "good": 900.0, "benefit": 90.0}}
    rows = [row, {**row, "delta": 0.05}, {**good, "delta": 0.01}, good]
    text = page.text(rows, 2000, 60.0)
    assert "3 of 4 designs hold" in text
    assert "The largest share is 0.0300 at delta 0.01 and 0.0300 at delta 0.05." in text
    assert "false certificates above delta" in text
    assert "| 100 rows | 2 | 0.5 | 0.05 | 0.0000 | 0.0000 | holds | 0.450 | 0.000 | 0.045 | 0.000 |" in text
