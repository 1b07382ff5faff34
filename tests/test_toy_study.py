"""The toy study, on networks that are hardly trained: it runs, it resumes, and its tables say what its numbers say."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Command

from lightning_steer.methods import MeanDifference, Ridge
from lightning_steer.studies.toy import adapters, networks, pools, study
from lightning_steer.studies.toy import tables as report
from lightning_steer.studies.toy.intervals import over_networks
from lightning_steer.studies.toy.settings import NetworkKind, ToyCell

TINY = [
    "--networks",
    "2",
    "--sets",
    "1",
    "--sizes",
    "4",
    "8",
    "32",
    "--steps",
    "10",
    "--report-networks",
    "2",
    "--check-networks",
    "2",
    "--attributes",
    "2",
]
TINY += [
    "--law-networks",
    "1",
    "--processes",
    "1",
    "--train-share",
    "0.01",
    "--only",
    "16x8-w32-none-m1",
    "vectors-none",
    "law-2-none",
]


def arguments(folder: Path) -> list[str]:
    return [*TINY, "--out", str(folder / "out"), "--networks-in", str(folder / "networks")]


def parts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "out" / "parts").glob("*.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    assert study.main(arguments(folder)) == 0
    return folder


def test_every_figure_and_table_is_there(finished: Path) -> None:
    assert len(parts(finished)) == 3
    made = {path.name for path in (finished / "out").iterdir()}
    assert {"tables.md", "pairs_density.png", "pairs_density.svg", "attributes.png", "law.svg"} <= made
    text = (finished / "out" / "tables.md").read_text()
    assert "too low: no conclusion" in text  # the networks are hardly trained, and the report says so
    assert "| LoReFT 8 |" in text
    assert "| random direction |" in text


def test_what_is_there_is_not_run_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        pytest.fail("a part that is there was run again")

    before = parts(finished)
    monkeypatch.setattr(study.cells, "run", never)
    monkeypatch.setattr(study.reproduction, "vectors", never)
    monkeypatch.setattr(study.law, "measure", never)
    assert study.main(arguments(finished)) == 0
    assert parts(finished) == before


def test_other_settings_are_run_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def vectors(*given: object) -> dict[str, object]:
        calls.append(given)
        raise KeyboardInterrupt

    monkeypatch.setattr(study.reproduction, "vectors", vectors)
    with pytest.raises(KeyboardInterrupt):
        study.main([*arguments(finished), "--attributes", "1", "--only", "vectors-none"])
    assert len(calls) == 1
    assert len(parts(finished)) == 3  # what an interrupted run has replaced is nothing


@pytest.mark.slow
def test_several_processes_are_one(finished: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lightning_steer.studies.toy", *arguments(tmp_path), "--processes", "2"]
    subprocess.run(command, check=True, capture_output=True)
    assert parts(tmp_path) == parts(finished)


@pytest.mark.slow
def test_a_killed_study_goes_on(finished: Path, tmp_path: Path) -> None:
    command = ["lightning_steer.studies.toy", *arguments(tmp_path)]
    for done in (0, 1, 2):  # of the three parts; each run makes the next one, and is killed as it writes the one after
        with Command(command, tmp_path / f"run{done}", stop_at=("[!.]*.json", 1 + (done > 0))) as run:
            run.wait_for_stop()
            assert len(parts(tmp_path)) == done
            run.kill()
    with Command(command, tmp_path / "last") as run:
        run.finish()
    assert parts(tmp_path) == parts(finished)


def test_bad_options() -> None:
    for argv in (["--networks", "1"], ["--sizes", "1"], ["--train-share", "0"], ["--steps", "0"]):
        with pytest.raises(SystemExit) as stopped:
            study.main(argv)
        assert stopped.value.code != 0
    assert study.main(["--only", "nothing"]) == 2


SMALL = ToyCell("axis", "level", NetworkKind(4, 3, 6, (16, 16, 16), 5), 2)


def test_networks_are_the_same_side_by_side_and_alone(tmp_path: Path) -> None:
    both = networks.trained(SMALL.network, 2, tmp_path / "both")
    networks.trained(SMALL.network, 1, tmp_path / "one")
    again = networks.trained(SMALL.network, 2, tmp_path / "one")  # the first is read, the second trained
    for name, weight in both.weights.items():
        torch.testing.assert_close(weight, again.weights[name], rtol=1e-4, atol=1e-5)


def test_stacked_fits_are_the_single_fits(tmp_path: Path) -> None:
    ensemble = networks.trained(SMALL.network, 2, tmp_path)
    pool = pools.draw(SMALL, ensemble, 2, 3, pools.FIT, 20)
    seen = pool.activations()
    for method in (MeanDifference, Ridge):
        together = method(6).fit(seen)(pool.h, 1.0)
        for i in range(2):
            for j in range(3):
                single = method(6).fit(seen._replace(h=seen.h[i, j], value=seen.value[i, j]))
                torch.testing.assert_close(together[i, j], single(pool.h[i, j], 1.0), rtol=1e-4, atol=1e-5)


def test_pairs_differ_in_the_targets_only(tmp_path: Path) -> None:
    ensemble = networks.trained(SMALL.network, 2, tmp_path)
    pool = pools.draw(SMALL, ensemble, 2, 3, pools.TEST, 20)
    changed = pool.y != pool.y_positive
    assert (changed.sum(-1) == 2).all()
    assert (pool.y_positive.gather(-1, pool.targets.unsqueeze(2).expand(-1, -1, 20, -1)) == 0).all()


def test_choosing_costs_pairs() -> None:
    assert adapters.budget(4) == (4, 4)
    for pairs in (8, 64, 2048):
        fit, select = adapters.budget(pairs)
        assert fit + select == pairs


def test_a_range_over_networks_and_not_over_sets() -> None:
    values = np.array([[0.0, 0.5, 0.1], [1.0, 1.0, 1.0]])
    assert over_networks(values, 2) == "0.60 (0.20 to 1.00)"
    assert over_networks(np.ones((5, 10)), 3) == "1.000"


def part(vector: float, other: float, bound: float = 1.0) -> dict[str, object]:
    """Exact match of both methods at 8 and 2,048 pairs on two networks: the vector's falls, the map's rises."""

    def cell(few: float, many: float, step: float) -> dict[str, dict[str, list[list[float]]]]:
        return {size: {"exact": [[value], [value + step]]} for size, value in (("8", few), ("2048", many))}

    methods = {"mean difference": cell(vector, vector, 0.01), "ridge": cell(other, 1.0, 0.012)}
    return {"methods": methods, "bounds": {"clean_exact": [[bound], [bound]], "oracle_patch": [[bound], [bound]]}}


def test_a_crossing_is_told_where_both_lead_in_turn() -> None:
    few, many, crossing, both = report.crossover(part(0.8, 0.5), "mean difference", "ridge") or ["", "", "", ""]
    assert few.startswith("n = 8: 0.30 (")
    assert many.startswith("n = 2048: -0.20 (")
    assert (crossing, both) == ("8 - 2048", "yes")
    assert report.crossover(part(0.8, 0.9), "mean difference", "ridge") is None


def test_no_conclusion_from_a_network_that_cannot_read() -> None:
    axes = [("density", "two", "cell")]
    assert "| density | two |" in report.crossover_table({"cell": part(0.8, 0.5)}, axes)
    assert "| density | two |" not in report.crossover_table({"cell": part(0.8, 0.5, bound=0.9)}, axes)


def test_parts_are_plain_json(finished: Path) -> None:
    for text in parts(finished).values():
        assert json.loads(text)["settings"]
