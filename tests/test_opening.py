"""A page of runs opens with one table and one figure; reports and tables say which model is steered, and where."""

import json
import re
from pathlib import Path
from typing import Any

from test_html import Reader, page, report

from lightning_steer.report import card, runs, svg
from lightning_steer.report.document import render
from lightning_steer.report.opening import Shown, opening, shown

ESTIMATE = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 9}
DAMAGE = {"value": 0.02, "low": 0.01, "high": 0.04, "n": 9}


def run(name: str, effect: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    metrics = {"margin_change": effect or ESTIMATE, "reference_kl": DAMAGE, "margin": ESTIMATE}
    columns = {"margin": ESTIMATE, "reference_kl": ESTIMATE}
    curve = {"measures": ["margin"], "unit": "nats"}
    return report(run=name, metrics=metrics, baselines={"baseline": columns}, dose_response=curve, **more)


def opened(reports: list[dict[str, Any]]) -> str:
    return render("report/opening.html", opening=opening(reports))


def test_the_change_stands_for_a_run_and_drift_for_its_damage() -> None:
    assert shown(run("a")) == Shown("margin_change", "reference_kl")
    assert shown(report()) == Shown("target_accuracy", "drift_kl")
    assert shown(report(metrics={}, baselines={})) == Shown(None, None)


def test_a_row_for_each_run_and_a_point_with_both_intervals() -> None:
    text = opened(
        [run("a", budget=0.1, place="layer 3, AllTokens"), run("b", budget=0.1, warnings=[]), report(run="c")]
    )
    read = Reader(text)
    assert not read.open
    assert read.tags.count("tr") == 4
    assert read.tags.count("figure") == 1
    assert read.tags.count("circle") == 2
    chart = text[text.index("<svg") :]
    whiskers = [line for line in re.findall(r"<line [^>]*>", chart) if "whisker" in line]
    assert len(whiskers) == 4
    assert chart.count('class="mark"') == 1
    assert "the budget of damage, 0.1" in read.said
    assert "1 run with other measures not shown" in read.said
    assert "layer 3, AllTokens" in read.said
    assert "0.500 [0.250, 0.750]" in read.said
    assert "1 warning." in read.said
    assert [value for name, value in read.given if name == "href"] == ["#run-0", "#run-1", "#run-2"]


def test_a_point_stands_where_its_values_are() -> None:
    chart = svg.scatter({"1": (DAMAGE, ESTIMATE), "2": (ESTIMATE, DAMAGE)}, "#000", [0.1], ("damage", "effect"))
    (x1, y1), (x2, y2) = ((float(a), float(b)) for a, b in re.findall(r'circle cx="([\d.]+)" cy="([\d.]+)"', chart))
    assert x1 < x2  # less damage
    assert y1 < y2  # more effect: the axis of a drawing points down
    nothing = svg.scatter({"1": ({"value": None, "low": None, "high": None}, ESTIMATE)}, "#000", [], ("a", "b"))
    assert "circle" not in nothing


def test_no_figure_of_one_run_or_of_runs_without_damage(tmp_path: Path) -> None:
    assert "<figure" not in opened([run("a")])
    assert "<figure" not in opened([report(run="a", metrics={"strength": ESTIMATE}, baselines={})] * 2)
    read = Reader(page(tmp_path, report()))  # of an older version: it does not say where
    assert not read.open
    assert read.said.index("a network") < read.said.index("It moves the target")


def test_reports_and_tables_say_where(tmp_path: Path) -> None:
    entries = {"place": "layers 2, 3, GeneratedTokens", "seed": 0, "warnings": [], "verdict": "It moves."}
    whole = {**report(), **entries}
    assert "a network, steered at layers 2, 3, GeneratedTokens." in card.text(whole)
    assert "a network." in card.text(report())
    (tmp_path / "run").mkdir()
    (tmp_path / "run/report.json").write_text(json.dumps(whole))
    (tmp_path / "old").mkdir()
    (tmp_path / "old/report.json").write_text(json.dumps(report()))
    table = runs.as_markdown(runs.read(tmp_path))
    assert "| run | backbone | place | method | seed |" in table
    assert "| run | a network | layers 2, 3, GeneratedTokens |" in table
    assert "| old | a network | - |" in table
    head, *rows = runs.as_csv(runs.read(tmp_path)).splitlines()
    assert head.startswith("run,experiment,task,backbone,place,method,seed,")
    assert '"layers 2, 3, GeneratedTokens"' in rows[1]
