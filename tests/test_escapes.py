"""What stands in a stranger's file is shown, never obeyed."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from lightning_steer.escapes import for_markdown, for_spreadsheet, for_terminal
from lightning_steer.report.__main__ import main as report_main
from lightning_steer.report.tables import markdown

ESTIMATE = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}
EVIL = "=1+1|\x1b]0;x\x07\n[x](javascript:alert(1))<script>"


def test_a_report_is_shown_and_not_obeyed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = {"experiment": EVIL, "task": "t", "backbone": "b", "method": EVIL, "seed": 0, "metrics": {EVIL: ESTIMATE}}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/report.json").write_text(json.dumps(report))
    assert report_main([str(tmp_path)]) == 0
    page = (tmp_path / "runs.md").read_text()
    for text in (page, capsys.readouterr().out):
        assert "\x1b" not in text
        assert "](" not in text.replace("\\](", "")
        assert not re.search(r"(?<!\\)<", text)
    rows = [re.split(r"(?<!\\)\|", line) for line in page.splitlines()]
    assert len(rows) == 3
    assert {len(row) for row in rows} == {8}
    cells = [cell for line in csv.reader(io.StringIO((tmp_path / "runs.csv").read_text())) for cell in line]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert not [cell for cell in cells if "\x1b" in cell]


def test_an_error_is_shown_and_not_obeyed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "\x1b[2Jrun").mkdir()
    (tmp_path / "\x1b[2Jrun/report.json").write_text("{")
    assert report_main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "\x1b" not in message
    assert "\\x1b[2Jrun" in message


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", " =1", "\t=1", "\uff1d1", "\r=1"])
def test_a_text_is_no_formula(text: str) -> None:
    assert str(for_spreadsheet(text)).startswith("'")


def test_what_is_harmless_stays() -> None:
    assert for_spreadsheet(-0.5) == -0.5
    assert for_spreadsheet("steer/mean_difference") == "steer/mean_difference"
    assert for_markdown("0.5 [0.4, 0.6] of a_b") == "0.5 [0.4, 0.6] of a_b"
    assert for_terminal("a\tb\n\u00e9 \u4e2d") == "a\tb\n\u00e9 \u4e2d"
    assert "a\\|b" in markdown({"a|b": {"c": ESTIMATE}}, ["c"])


def test_actions_are_pinned_by_digest() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    used = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name) for name in used)
