"""The command for a GPU runs on the CPU in its small form: every law holds, and a part that fails says so."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def gpu() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import gpu as module

    yield module
    sys.path.remove(str(ROOT / "benchmarks"))


def test_laws_hold_and_everything_is_measured(gpu: ModuleType, tmp_path: Path) -> None:
    assert gpu.main(["--device", "cpu", "--folder", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert {row["part"] for row in rows} == {*gpu.PARTS, "hooks"}
    laws = [row for row in rows if row["part"] == "laws"]
    assert len(laws) == 9  # check, sweep, search and MERA in two precisions, and lasso
    assert all(row["holds"] for row in laws)
    assert not [row for row in rows if row["what"] == "the rest"]
    assert "| laws | float32: laws of `check` | 17 of 17 hold | 1 | yes |" in (tmp_path / "gpu.md").read_text()


def test_a_part_that_is_late_or_fails_leaves_what_it_has(gpu: ModuleType) -> None:
    def slow() -> Iterator[object]:
        yield gpu.Row("x", "first", "1")
        while True:
            pass

    def broken() -> Iterator[object]:
        yield gpu.Row("x", "first", "1")
        raise ArithmeticError("no number")

    def too_large() -> Iterator[object]:
        yield gpu.Row("x", "first", "1")
        raise gpu.torch.OutOfMemoryError

    assert [row.value for row in gpu.limited(slow(), 0.2, "x")] == ["1", "stopped after 0 s"]
    assert [row.value for row in gpu.limited(broken(), 9, "x")] == ["1", "ArithmeticError: no number"]
    assert [row.value for row in gpu.limited(too_large(), 9, "x")] == ["1", "does not fit into the memory that is free"]


def test_a_law_that_fails_is_the_exit_code(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = gpu.Row("laws", "x", "1", holds=False)
    monkeypatch.setattr(gpu, "PARTS", {"laws": (lambda _form: iter([wrong]), 9)})
    assert gpu.main(["--device", "cpu", "--folder", str(tmp_path)]) == 1
    assert "| NO |" in (tmp_path / "gpu.md").read_text()
