"""The report as a page: all of it there, nothing from a network, nothing from a report taken for markup."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.report import document, svg
from lightning_steer.report.__main__ import main
from lightning_steer.report.labels import WORDS

ESTIMATE = {"value": 0.5, "low": 0.4321, "high": 0.6, "n": 2000}
COLUMN = {"value": [0.1, 0.5, 0.2], "low": [0.0, 0.4, 0.1], "high": [0.2, 0.6, 0.3]}


def report(**changes: Any) -> dict[str, Any]:
    row = {"target_accuracy": ESTIMATE, "drift_kl": ESTIMATE}
    whole = {
        "experiment": "e",
        "task": "a task",
        "backbone": "a network",
        "method": "MeanDifference",
        "seed": 0,
        "versions": {"torch": "2.13"},
        "verdict": "It moves the target in 97 % of rows.",
        "choice": "Strength 1 is certified.",
        "warnings": ["take care"],
        "metrics": {**row, "strength": {"value": 1.0, "low": 0.5, "high": 2.0, "n": 16}, "certified_bound": ESTIMATE},
        "baselines": dict.fromkeys(("baseline", "random_control", "mean_ablation", "oracle_patch"), row),
        "fitted_rows": row,
        "dose_response": {"measures": ["target_accuracy"], "unit": "share of rows"},
        "curves": {"strength": {"x": [0.5, 1.0, 2.0], "target_accuracy": COLUMN, "drift_kl": COLUMN}},
        "profile": {"kl": {key: [None, 0.1, 0.2] for key in ("value", "low", "high")}},
    }
    return {**whole, **changes}


def page(folder: Path, *reports: dict[str, Any]) -> str:
    for i, report in enumerate(reports):
        (folder / f"run{i}").mkdir()
        (folder / f"run{i}/report.json").write_text(json.dumps(report))
        (folder / f"run{i}/test.yaml").write_text("model: <b>&\n")
    assert main([str(folder), "--html"]) == 0
    return (folder / "report.html").read_text()


class Reader(HTMLParser):
    """Tags and attributes, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.given: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.given += attrs
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.given += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def test_all_of_it_is_there(tmp_path: Path) -> None:
    read = Reader(page(tmp_path, report(), report(method="LEACE", warnings=[])))
    assert not read.open
    for part in (
        "It moves the target in 97 % of rows.",
        "At the price of: drift of the others, KL (nats) 0.500 [0.432, 0.600]",
        "Warning. take care",
        "Dose-response",
        "What else moved, by attribute",
        "random direction, equal norm",
        "oracle patch",
        "Certified on average: an improvement of more than 0.500",
        "Strength 1 is certified.",
        "a network",
        "torch 2.13",
        "model: <b>&",
        "2,000 held-out rows",
    ):
        assert part in read.said, part
    assert read.tags.count("article") == 2
    assert read.tags.count("figure") == 5  # two of each run, and effect against damage
    assert read.said.count("1 warning.") == 1


def test_it_needs_nothing_else(tmp_path: Path) -> None:
    text = page(tmp_path, report())
    read = Reader(text)
    assert not {"script", "img", "iframe", "object", "embed", "form"} & set(read.tags)
    targets = [value for name, value in read.given if name in ("src", "href", "action", "srcset", "data")]
    assert [value for value in targets if not (value or "").startswith("#")] == ["data:,"]
    assert not [name for name, _ in read.given if name.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


def test_nothing_in_a_report_becomes_markup(tmp_path: Path) -> None:
    estimate = {HOSTILE: ESTIMATE, "drift_" + HOSTILE: ESTIMATE, "target_accuracy": ESTIMATE}
    hostile = report(
        **dict.fromkeys(("experiment", "task", "backbone", "method", "verdict", "choice"), HOSTILE),
        warnings=[HOSTILE],
        versions={HOSTILE: HOSTILE},
        metrics=estimate,
        baselines={"baseline": estimate, "random_control": estimate, HOSTILE: estimate},
        dose_response={"measures": [HOSTILE], "unit": HOSTILE},
        curves={"strength": {"x": [0.5, 1.0, 2.0], HOSTILE: COLUMN}},
        profile={HOSTILE: COLUMN},
    )
    text = page(tmp_path, hostile)
    read = Reader(text)
    assert not {"script", "img"} & set(read.tags)
    assert not [name for name, _ in read.given if name.startswith("on")]
    assert read.said.count("alert(1)") > 10


def test_no_template_leaves_escaping_out() -> None:
    templates = sorted(Path(document.PACKAGE).rglob("*/*.html"))
    assert len(templates) > 4
    for path in templates:
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", path.read_text()), path


def test_a_report_with_little_in_it(tmp_path: Path) -> None:
    least = {key: report()[key] for key in ("experiment", "task", "backbone", "method", "seed", "metrics")}
    read = Reader(page(tmp_path, least))
    assert not read.open
    assert "figure" not in read.tags


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"metrics": {"target_accuracy": {"value": "0.5"}}}, "metrics.target_accuracy.value is '0.5', not a number"),
        ({"metrics": {"target_accuracy": {"value": 1}}}, "lacks 'low'"),
        ({"warnings": "none"}, "warnings is 'none', not a list"),
        (
            {"curves": {"strength": {"x": [1.0], "target_accuracy": COLUMN}}},
            "curves.strength.target_accuracy.value has 3 values, not 1",
        ),
        ({"profile": {"kl": [1]}}, "profile.kl is '[1]', not a dict"),
        ({"verdict": {"a": 1}}, "verdict is"),
        ({"intervals": 1}, "intervals is"),
    ],
)
def test_a_damaged_report_is_refused(
    change: dict[str, Any], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report(**change)))
    assert main([str(tmp_path), "--html"]) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def numbers(text: str, attribute: str) -> list[float]:
    return [float(value) for value in re.findall(rf'\b{attribute}="(-?[\d.]+)"', text)]


def test_points_lie_where_their_values_are() -> None:
    curve = {"value": [0.0, 0.5, 1.0], "low": [0.0, 0.4, None], "high": [0.1, 0.6, 1.0]}
    text = svg.lines([0.0, 1.0, 4.0], {"a": curve}, ["#000000"], 1.0, ("x", "y"))
    across, up = numbers(text, "cx"), numbers(text, "cy")
    assert across[1] - across[0] == pytest.approx((across[2] - across[0]) / 4, abs=0.2)
    assert up[0] - up[1] == pytest.approx(up[1] - up[2], abs=0.2)
    assert up[0] > up[2]
    points = re.search(r'polygon points="([^"]+)"', text)
    assert points
    assert len(points[1].split()) == 5  # three highs and the two lows that there are


@pytest.mark.parametrize("x", [[1.0], [0.0], [-3.0, -3.0], [1e-9, 1e9], [5.0, 1.0]])
@pytest.mark.parametrize("value", [None, 0.0, -1e9, 1e-12, float("nan"), float("inf"), 1e200])
def test_a_chart_of_odd_numbers_stays_in_its_frame(x: list[float], value: float | None) -> None:
    column = {key: [value] * len(x) for key in ("value", "low", "high")}
    for text in (svg.lines(x, {"a": column}, ["#000"], value, ("x", "y")), svg.bars(column, "#000", ("x", "y"))):
        assert "nan" not in text
        assert "inf" not in text
        for attribute, most in (("cx", svg.WIDTH), ("x1", svg.WIDTH), ("cy", svg.HEIGHT), ("y1", svg.HEIGHT)):
            assert all(-1 <= number <= most + 1 for number in numbers(text, attribute))


def test_a_negative_and_a_shaded_bar() -> None:
    columns = {"value": [None, 0.5], "low": [None, 0.4], "high": [None, 0.6]}
    text = svg.bars(columns, "#000", ("x", "y"))
    assert text.count('class="meant"') == 1
    assert text.count('class="whisker"') == 1


BROWSER = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), None)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_a_word(width: int, tmp_path: Path) -> None:
    page(tmp_path, report())
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options = [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2000", "--enable-logging=stderr"]
    shot = tmp_path / "shot.png"
    command = [str(BROWSER), *quiet, *options, f"--screenshot={shot}", f"file://{tmp_path / 'report.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shot.stat().st_size > 20_000
    assert "CONSOLE" not in done.stderr


EVALUATIONS = [kind for kind in Evaluation.__subclasses__() if kind.__module__.startswith("lightning_steer.")]
PLAIN = {"accuracy", "balanced_accuracy", "precision", "recall", "fidelity"}


@pytest.mark.parametrize("evaluation", EVALUATIONS, ids=lambda kind: kind.__name__)
def test_every_measure_has_a_name_for_people(evaluation: type[Evaluation]) -> None:
    assert {*evaluation.headline, *evaluation.also} <= WORDS.keys() | PLAIN


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ({"value": 0.25, "low": 0.25, "high": None}, "Certified: an improvement of more than 0.250."),
        ({"value": 0.0, "low": 0.0, "high": None}, "No improvement is certified."),
        ({"value": None, "low": None, "high": None}, "No improvement is certified."),
        (ESTIMATE, "Certified on average: an improvement of more than 0.500 [0.432, 0.600]."),
    ],
)
def test_the_certificate_says_what_was_certified(bound: dict[str, Any], said: str, tmp_path: Path) -> None:
    metrics = {**report()["metrics"], "certified_bound": {"n": 250, **bound}}
    assert said in Reader(page(tmp_path, report(metrics=metrics))).said


@pytest.mark.parametrize(
    ("chosen", "said"), [(2.0, "Dotted: the"), (3.0, "Not in the picture: the"), (0.0, "Dotted: the")]
)
def test_only_a_strength_in_the_picture_is_dotted(chosen: float, said: str, tmp_path: Path) -> None:
    metrics = {**report()["metrics"], "strength": {"value": chosen, "low": None, "high": None, "n": 16}}
    read = Reader(page(tmp_path, report(metrics=metrics)))
    assert f"{said} chosen strength, {chosen:g}." in read.said
    assert (("class", "mark") in read.given) == said.startswith("Dotted")
