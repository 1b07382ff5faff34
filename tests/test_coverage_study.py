"""A quick form of the study of coverage: some cells of every table, and rules that fail where they should."""

import numpy as np
import pytest

from lightning_steer.statistics.columns import as_clusters
from lightning_steer.statistics.kinds import Intervals, Share
from lightning_steer.studies.coverage import page
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
    asked = ["--sets", "20", "--tables", "rank", "units", "--out", str(tmp_path), "--page", str(tmp_path / "a.md")]
    assert main([*asked, "--processes", "1"]) == 0
    first = (tmp_path / "a.md").read_text()
    parts = sorted(tmp_path.glob("20-*/*.json"))
    assert len(parts) == 7
    times = [part.stat().st_mtime_ns for part in parts[1:]]
    parts[0].unlink()
    assert main([*asked, "--processes", "1"]) == 0
    assert (tmp_path / "a.md").read_text() == first
    assert [part.stat().st_mtime_ns for part in parts[1:]] == times
    assert "7 of 7 cells hold." in capsys.readouterr().out
