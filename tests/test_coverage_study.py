"""A quick form of the study of coverage: some cells of every table, and rules that fail where they should."""

import numpy as np
import pytest

from lightning_steer.statistics import intervals
from lightning_steer.statistics.columns import as_clusters
from lightning_steer.statistics.kinds import Intervals, Mean, Share
from lightning_steer.studies.coverage import designs, page
from lightning_steer.studies.coverage.__main__ import main
from lightning_steer.studies.coverage.cells import Cell, all_cells
from lightning_steer.studies.coverage.verdicts import fault

CELLS = all_cells()
QUICK = {table: [c for c in CELLS if c.table == table] for table in dict.fromkeys(c.table for c in CELLS)}
SETS = 300


@pytest.mark.parametrize("table", QUICK)
def test_some_cells_of_every_table_hold(table) -> None:
    """The 99 % interval is that of 300 data sets: only gross faults show here, the fine ones in `make coverage`."""
    cells = QUICK[table]
    for cell in cells[:: max(len(cells) // 3, 1)][:4]:
        for row in cell.run(SETS):
            assert not fault(row), (row, page.summary([row]))


def test_every_table_of_the_contract_has_its_cells() -> None:
    counts = {table: len(cells) for table, cells in QUICK.items()}
    assert counts["share, independent rows"] == 12
    assert counts["share, clusters"] == 4 * 2 * 4 * 4
    assert len({(c.table, c.design) for c in CELLS}) == len(CELLS)


def test_an_interval_that_ignores_clusters_fails() -> None:
    """The fault that was there: exact intervals by rows, whatever the clusters."""
    cell = next(c for c in QUICK["share, clusters"] if c.design == "30 clusters, 10 each, ICC 0.3, p 0.5")
    cluster = np.repeat(np.arange(30), 10)

    def by_rows(random, sets):
        from lightning_steer.studies.coverage.designs import shares

        rows = shares(random, 0.5, 0.3, cluster, sets)
        return {"": (Share().interval(rows, None), 0.5, 1.0)}

    assert fault(Cell(cell.table, cell.design, by_rows).run(SETS)[0]) == "coverage below .93"
    assert as_clusters(cluster, 300) is not None


@pytest.mark.parametrize(
    ("table", "design"),
    [
        ("mean over independent units", "5 units, failures of a tenth"),
        ("mean over independent units", "8 units, Beta 50 0.3"),
    ],
)
def test_an_interval_of_few_skewed_values_fails(table: str, design: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that was there: Student's t of few, whatever their law."""
    cell = next(c for c in QUICK[table] if c.design == design)
    assert cell.run(SETS)[0]["none"] == 1
    monkeypatch.setattr(intervals, "ENOUGH", 2)
    monkeypatch.setattr(intervals, "UNITS", 2)
    assert fault(cell.run(SETS)[0]) == "coverage below .93"


def test_the_rules() -> None:
    held = {"sets": 4000, "holds": 3700, "none": 0.0, "common": True}
    assert fault(held) == ""
    assert fault({**held, "holds": 3660}) == "coverage below .93"
    assert fault({**held, "none": 0.3}) == "no interval too often"
    assert fault({**held, "none": 0.3, "common": False}) == ""
    certificate = {"sets": 4000, "certified": 60, "delta": 0.01, "effect": 0.0}
    assert fault(certificate) == "false certificates above delta"
    assert fault({**certificate, "effect": 0.1}) == ""
    assert fault({"sets": 2100, "at_most": [100 * j for j in range(1, 21)]}) == ""
    assert fault({"sets": 2100, "at_most": [200, *(100 * j for j in range(2, 21))]}) == "p is at most 1/21 too often"


def test_no_interval_counts_as_the_full_range() -> None:
    row = Cell("t", "d", lambda r, s: {"": (Intervals.none(np.zeros(s), "none: why"), 0.5, 2.0)}).run(10)[0]
    assert (row["holds"], row["width"], row["none"]) == (10, 2.0, 1.0)


def test_the_study_goes_on_where_it_stopped(tmp_path, capsys) -> None:
    argv = [
        "--sets",
        "20",
        "--tables",
        "rank",
        "share, independent",
        "--out",
        str(tmp_path),
        "--page",
        str(tmp_path / "a.md"),
    ]
    assert main([*argv, "--processes", "1"]) == 0
    first = (tmp_path / "a.md").read_text()
    parts = sorted(tmp_path.glob("20-*/*.json"))
    assert len(parts) == 16
    times = [part.stat().st_mtime_ns for part in parts[1:]]
    parts[0].unlink()
    assert main([*argv, "--processes", "1"]) == 0
    assert (tmp_path / "a.md").read_text() == first
    assert [part.stat().st_mtime_ns for part in parts[1:]] == times
    assert "12 of 12 cells of intervals hold." in capsys.readouterr().out


def test_a_mean_that_a_few_rows_may_carry_has_no_interval() -> None:
    """The fault that was there: Student's interval of a lognormal KL held in .73 of sets."""
    rows = np.exp(2 * np.random.default_rng(0).standard_normal((30, 500)))
    estimates = Mean(low=0).estimate(rows)
    assert {(np.isnan(e.low), np.isnan(e.high)) for e in estimates} == {(True, True)}
    assert "carried by a few rows" in estimates[0].how
    bounded = Mean(0, 1).interval(designs.drifts(np.random.default_rng(0), "lognormal 2", 0.02, 30, 500), None)
    true = designs.mean_drift("lognormal 2", 0.02)
    assert ((bounded.low <= true) & (true <= bounded.high)).mean() > 0.95


def test_a_share_holds_where_one_cluster_has_most_rows() -> None:
    """The fault that was there: .43 to .93, as if all clusters counted the same."""
    cell = next(
        c for c in QUICK["share, very unequal clusters"] if c.design == "100 clusters, one of 60 %, ICC 0.1, p 0.5"
    )
    row = cell.run(SETS)[0]
    assert row["holds"] / SETS > 0.94


def test_icat_at_its_bound_is_not_given_half_of_its_range() -> None:
    cell = next(c for c in QUICK["ICAT over terms"] if c.design == "30 terms, SS 50, LMS 100")
    row = cell.run(SETS)[0]
    assert row["holds"] / SETS > 0.92
    assert row["width"] < 30  # 51 before


def test_power_is_counted_apart_and_the_lowest_coverage_is_told() -> None:
    held = {"table": "a", "design": "d", "sets": 4000, "holds": 3760, "none": 0.0, "common": True}
    power = {"table": "c", "design": "d", "sets": 4000, "certified": 60, "hoeffding": 1, "delta": 0.01, "effect": 0.1}
    summary = page.summary([held, power, {**power, "effect": 0.0, "certified": 3}])
    assert "1 of 1 cells of intervals hold. The lowest actual coverage is 0.940; 1 cells cover less than .95" in summary
    assert "1 of 1 cells of false certificates" in summary
    assert "1 more cells show power" in summary


def test_where_a_judge_does_not_narrow_the_interval_is_named() -> None:
    rows = [
        {"design": f"{labels} labels, bias 0, {kind} judge", "estimate": estimate, "width": width}
        for labels, kind, widths in ((100, "good", (0.1002, 0.1004)), (400, "good", (0.03, 0.04)), (9, "blind", (1, 2)))
        for estimate, width in zip(("labels and judge", "labels alone"), widths, strict=True)
    ]
    text = page.narrower(rows)
    assert (
        "a good judge it is narrower in 1 of 2 designs, by at most 25%, and NOT narrower at 100 labels, bias 0." in text
    )
    assert "a blind judge it is narrower in 1 of 1 designs, by at most 50%, and NOT narrower at none." in text
