"""Outcomes from any tool: what is read, what is said of it, which setting is chosen, and how it is written."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

import lightning_steer as ls
from lightning_steer import __main__ as command_line
from lightning_steer.outcomes import Judgement, calls, judge
from lightning_steer.outcomes.promise_text import parse, promises
from lightning_steer.statistics.bounds import Betting

STRENGTHS = (0.0, 0.5, 1.0, 2.0)


def column(rose: int, fell: int, n: int, right: int) -> np.ndarray:
    """Values of n items of which ``right`` are 1 at the baseline: the first of these fall, the first others rise."""
    values = np.repeat([1, 0], [right, n - right])
    values[:fell], values[right : right + rose] = 0, 1
    return values


def table(path: Path, measures: dict[str, Sequence[tuple[int, int, int]]], n: int = 200, **more: Any) -> Path:
    """Write ``(rose, fell, right at the baseline)`` of each measure at every strength; the first is the baseline."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item", "setting", "measure", "value", *more])
        for name, parts in measures.items():
            for strength, (rose, fell, right) in zip(STRENGTHS, parts, strict=True):
                for i, value in enumerate(column(rose, fell, n, right)):
                    writer.writerow([f"q{i}", strength, name, bool(value), *(of(i) for of in more.values())])
    return path


REFUSED = [(0, 0, 20), (30, 0, 20), (100, 0, 20), (150, 0, 20)]
RIGHT = [(0, 0, 150), (1, 1, 150), (2, 2, 150), (0, 40, 150)]


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    return table(tmp_path / "outcomes.csv", {"refused": REFUSED, "right": RIGHT})


def by_name(judgement: Judgement) -> dict[str, dict[str, Any]]:
    return {measure.name: {setting.setting: setting for setting in measure.settings} for measure in judgement.measures}


def test_the_change_item_by_item(outcomes: Path) -> None:
    judgement = judge(outcomes)
    right = by_name(judgement)["right"]
    assert [(setting.rose, setting.fell) for setting in right.values()] == [(0, 0), (1, 1), (2, 2), (0, 40)]
    assert right["2"].value.value == 110 / 200
    change = right["2"].change
    assert change.value == -40 / 200
    assert change.low < -0.2 < change.high < -0.14
    assert (change.n, change.clusters, change.how) == (200, None, "score (Tango)")
    assert right["0"].change.how == "by definition"
    assert judgement.choice is None
    assert "Behind the total: at 1, 2 items rose and 2 fell, a balance of +0 of 200" in str(judgement)


def test_the_public_name() -> None:
    assert ls.judge is judge


def test_the_largest_benefit_among_the_settings_that_keep_every_promise(outcomes: Path) -> None:
    judgement = judge(outcomes, "refused>=0", {"right falls": 0.1}, split=0.5)
    choice = judgement.choice
    assert choice is not None
    assert choice.chosen == "1"  # 2 refuses more, but gives up a fifth of the right answers
    assert [candidate.certified for candidate in choice.candidates] == [True, True, False]
    passed = {candidate.setting: [outcome.kept for outcome in candidate.promises] for candidate in choice.candidates}
    assert passed["2"] == [True, False]
    assert choice.candidates[2].promises[1].needed is None
    fresh = {outcome.promise.measure: outcome.change for outcome in choice.remade}
    assert fresh["refused"].n == fresh["right"].n == 100
    assert fresh["refused"].low > 0.3
    text = str(judgement)
    assert "Setting 1 is certified at confidence 0.95" in text
    assert text.index("refused rises") < text.index("right falls") < text.index("## Promises")


def test_abstention_names_the_promise_that_failed_and_how_many_items_would_do(outcomes: Path) -> None:
    choice = judge(outcomes, "refused>=0", {"right falls": 0.02}, delta=0.01).choice
    assert choice is not None
    assert choice.chosen is None
    assert not choice.remade
    nearest = choice.candidates[0]
    assert [outcome.kept for outcome in nearest.promises] == [True, False]
    needed = nearest.promises[1].needed
    assert needed is not None
    assert needed > 200
    text = str(judge(outcomes, "refused>=0", {"right falls": 0.02}, delta=0.01))
    assert "No setting is certified" in text
    assert "right falls by less than 0.02 is certified at 0 of 3 settings" in text
    assert f"If this is the true change, about {needed:,} items would certify it" in text
    assert "there are 200; if the true change is at the limit or worse, no number would." in text


def test_enough_items_are_enough(tmp_path: Path) -> None:
    """The number that is said to be needed, of items like these, certifies."""
    harms = [(0, 0, 150), (1, 3, 150), (1, 3, 150), (1, 3, 150)]
    path = table(tmp_path / "x.csv", {"refused": REFUSED, "right": harms})
    needed = max(c.promises[1].needed or 0 for c in judge(path, "refused>=0", {"right falls": 0.05}).choice.candidates)
    assert needed > 200
    times = -(-needed // 200)
    more = {name: [tuple(times * x for x in part) for part in parts]
            for name, parts in (("refused", REFUSED), ("right", harms))}  # fmt: skip
    again = judge(table(tmp_path / "y.csv", more, n=200 * times), "refused>=0", {"right falls": 0.05}, split=1).choice
    assert all(candidate.certified for candidate in again.candidates)


def test_a_harm_in_either_direction_is_limited_in_both(outcomes: Path) -> None:
    assert parse("right<=.1", False).sign == 0
    choice = judge(outcomes, "right>=0", ["refused<=.1"]).choice
    assert choice is not None
    assert not any(candidate.promises[1].kept for candidate in choice.candidates)
    rise = judge(outcomes, "right>=0", ["refused falls<=.1"]).choice
    assert all(candidate.promises[1].kept for candidate in rise.candidates)
    assert choice.candidates[2].promises[1].change == pytest.approx(rise.candidates[2].promises[1].change)
    assert choice.candidates[2].promises[1].change > 0.5


def test_promises_as_text() -> None:
    assert promises("refused", {"right": 0.05}) == (parse("refused>=0", True), parse("right<=.05", False))
    parsed = parse(" safe answers [ a b ] rises <= 5e-2 ", False)
    assert parsed == ("safe answers", "a b", 1, 0.05, False)
    assert str(parsed) == "safe answers[a b] rises by less than 0.05"
    assert parse("it falls falls>=.1", True)[:3] == ("it falls", None, -1)
    assert str(parse("toxic falls>=.1", True)) == "toxic falls by more than 0.1"


def test_a_promise_about_a_group(tmp_path: Path) -> None:
    group = {"group": lambda i: "safe" if i % 2 else "unsafe"}
    path = table(tmp_path / "x.csv", {"refused": REFUSED}, **group)
    judgement = judge(path, "refused[unsafe]>=0", {"refused[safe] rises": 0.05})
    choice = judgement.choice
    assert choice.units == {"refused[unsafe]": (50, 50), "refused[safe]": (50, 50)}
    assert choice.chosen is None
    assert [candidate.promises[0].kept for candidate in choice.candidates] == [True, True, True]
    groups = by_name(judgement)["refused"]["2"].groups
    assert {name: (e.n, e.value) for name, e in groups.items()} == {"safe": (100, 0.75), "unsafe": (100, 0.75)}


def test_an_item_is_in_the_same_part_of_every_measure(outcomes: Path) -> None:
    from lightning_steer.outcomes.choosing import split
    from lightning_steer.outcomes.pairing import measures
    from lightning_steer.outcomes.reading import read

    read_measures = measures(read([outcomes])[0], None, {})
    parts = split(read_measures, 0.5, 0)
    chosen = [set(part.choosing.items) for part in parts.values()]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 100
    assert chosen[0].isdisjoint(parts["right"].others.items)
    assert chosen[0] != set(split(read_measures, 0.5, 1)["right"].choosing.items)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"cluster": 4}, {}),
        ({"seeds": 3}, {}),
        ({"seeds": 3}, {"cluster": 4}),
        ({"cluster": 4}, {"cluster": 10}),
        ({"cluster": 4}, {"cluster": 3}),
    ],
)
def test_no_item_chooses_by_one_measure_and_judges_by_another(
    first: dict[str, int], second: dict[str, int], tmp_path: Path
) -> None:
    """Whatever is a cluster in either: both parts are whole in items and in clusters, and neither is empty."""
    from lightning_steer.outcomes.choosing import split
    from lightning_steer.outcomes.pairing import measures
    from lightning_steer.outcomes.reading import read

    paths = []
    for name, how in (("a", first), ("b", second)):
        lines = ["item,setting,measure,value,seed" + ",cluster" * ("cluster" in how)]
        for item in range(60):
            # fours, or threes, of items within runs of twelve: clusters overlap, and five runs are never linked
            within = f",{name}{item // 12}/{item % 12 // how['cluster']}" if "cluster" in how else ""
            lines += [
                f"q{item},{setting},{name},{(item + setting) % 2},{seed}{within}"
                for setting in (0, 1)
                for seed in range(how.get("seeds", 1))
            ]
        paths.append(tmp_path / f"{name}.csv")
        paths[-1].write_text("\n".join(lines) + "\n")
    parts = split(measures(read(paths)[0], None, {}), 0.5, 0)
    choosing, others = ({item for part in parts.values() for item in part[k].items} for k in (0, 1))
    assert choosing
    assert others
    assert choosing.isdisjoint(others)
    for part in parts.values():
        assert set(part.choosing.units()).isdisjoint(part.others.units())


def test_clusters_are_whole_in_the_split_and_count_once(tmp_path: Path) -> None:
    topic = {"topic": lambda i: f"t{i // 20}"}
    path = table(tmp_path / "x.csv", {"refused": REFUSED, "right": RIGHT}, **topic)
    judgement = judge(path, "refused>=0", {"right falls": 0.1}, cluster="topic")
    assert judgement.choice.counted == {"refused": "clusters", "right": "clusters"}
    assert judgement.choice.units == {"refused": (100, 100), "right": (100, 100)}
    assert judgement.choice.chosen is None  # ten topics say less than two hundred items
    change = by_name(judgement)["right"]["2"].change
    assert change.clusters == 10
    assert "CR2" in change.how
    assert change.high - change.low > 0.2
    assert "in 10 clusters" in str(judgement)
    assert "No clusters are named" not in str(judgement)


def unequal_clusters(path: Path, small_falls: bool = False) -> Path:
    """Write 200 clusters of which every tenth has 40 items, a third of them harmed, and the others two that do well."""
    with path.open("w") as file:
        file.write("item,strength,measure,value,cluster\n")
        for cluster in range(200):
            large = cluster % 10 == 0
            for i in range(40 if large else 2):
                harmed = i % 3 == 0 if large else small_falls
                for strength in (0, 1):
                    start = f"c{cluster}q{i},{strength}"
                    file.write(f"{start},right,{not (strength and harmed)},c{cluster}\n")
                    file.write(f"{start},refused,{bool(strength)},c{cluster}\n")
    return path


@pytest.mark.parametrize("share", [0.5, 1])
def test_a_certificate_about_clusters_says_what_rows_do(share: float, tmp_path: Path) -> None:
    judgement = judge(unequal_clusters(tmp_path / "x.csv"), "refused>=0", {"right falls": 0.15}, split=share)
    choice = judgement.choice
    assert choice.chosen == "1"
    [right] = [outcome for outcome in choice.over_rows if outcome.promise.measure == "right"]
    assert right.change.value < -0.2 < -0.1 < right.over_clusters.value < 0
    assert right.over_clusters.low > -0.15
    assert bool(choice.remade) is (share < 1)
    first, warning = str(judgement).split("**")[1:3]
    assert "(of refused, right: the mean over clusters, each counting once)" in first
    assert warning.startswith(
        " WARNING: the mean over rows breaks this promise: right falls by less than 0.15. On the items"
    )
    assert "refused rises" not in warning.partition("## Promises")[0]  # over rows it rises, too
    if choice.remade:
        assert "as a mean over 100 clusters" in warning
        assert "as a mean over rows" in warning


def test_a_mean_over_rows_that_may_break_a_promise(tmp_path: Path) -> None:
    judgement = judge(unequal_clusters(tmp_path / "x.csv"), "refused>=0", {"right falls": 0.25}, split=1)
    [right] = [outcome for outcome in judgement.choice.over_rows if outcome.promise.measure == "right"]
    assert right.change.low < -0.25 < right.change.value
    assert "The mean over rows may break this promise" in str(judgement)
    assert "WARNING" not in str(judgement)
    far = judge(unequal_clusters(tmp_path / "x.csv"), "refused>=0", {"right falls": 0.6}, split=1)
    assert "breaks this promise" not in str(far)
    assert "may break" not in str(far)


def test_whether_a_change_holds_a_promise() -> None:
    for text, benefit, holds, broken in (
        ("right>=.1", True, 0.2, 0.1),
        ("toxic falls>=.1", True, -0.2, -0.1),
        ("right falls<=.1", False, -0.05, -0.1),
        ("right rises<=.1", False, -0.5, 0.1),
        ("right<=.1", False, -0.05, -0.2),
    ):
        assert parse(text, benefit).holds(holds)
        assert not parse(text, benefit).holds(broken)
        assert not parse(text, benefit).holds(float("nan"))


def test_a_count_that_shows_0_and_1_alone_is_no_share(outcomes: Path, tmp_path: Path) -> None:
    """A value that is too rare to be seen may turn the mean, so nothing is promised until somebody rules it out."""
    counts = tmp_path / "counts.csv"
    counts.write_text(outcomes.read_text().replace("True", "1").replace("False", "0"))
    with pytest.raises(
        ValueError, match=r"'refused', 'right' .* --range refused=0\.\.1 --range right=0\.\.1 if no other"
    ):
        judge(counts, "refused>=0", {"right falls": 0.1})
    declared = judge(counts, "refused>=0", {"right falls": 0.1}, ranges={"refused": (0, 1), "right": (0, 1)})
    assert declared.choice == judge(outcomes, "refused>=0", {"right falls": 0.1}).choice
    assert "no other value can occur" not in str(declared)
    assert "All values of refused, right are 0 or 1" in str(judge(counts))
    assert "no other value can occur" not in str(judge(outcomes))


@pytest.mark.parametrize("kind", ["html", "md", "json"])
def test_the_best_of_several_calls_is_told_apart(kind: str, outcomes: Path, tmp_path: Path) -> None:
    def call(seed: int = 0, limit: float = 0.1, path: Path = outcomes) -> Judgement:
        return judge(path, "refused>=0", {"right falls": limit}, seed=seed)

    def sentences() -> str:
        return " ".join(calls.sentences(calls.with_earlier(judgement, page)))

    page = tmp_path / f"page.{kind}"
    judgement = call()
    judgement.save(page)
    assert not sentences()  # the same call again
    judgement = call(seed=1)
    assert "1 earlier call on the same outcomes with another seed." in sentences()
    judgement.save(page)
    judgement = call()
    assert "1 earlier call on the same outcomes with another seed." in sentences()  # nor is it forgotten
    judgement = call(limit=0.2)
    assert "2 earlier calls on the same outcomes with another seed, promises or options." in sentences()
    grown = table(tmp_path / "grown.csv", {"refused": REFUSED, "right": RIGHT}, n=260)
    judgement = call(path=grown)
    assert "was of other outcomes under the same promises. If these are the same items and more" in sentences()
    assert "WARNING" not in sentences()
    judgement.save(page)
    if kind != "json":
        assert "If these are the same items and more" in page.read_text()
    page.write_bytes(b"\xff something else")
    assert not sentences()


def test_the_command_tells_of_earlier_calls(outcomes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["judge", str(outcomes), "--benefit", "refused>=0", "--json", str(tmp_path / "x.json"), "--seed"]
    assert command_line.main([*arguments, "0"]) == 0
    assert "earlier call" not in capsys.readouterr().out
    assert command_line.main([*arguments, "1"]) == 0
    assert "** WARNING: the page saved here holds 1 earlier call" in capsys.readouterr().out
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["call"]["seed"] == 1
    assert [call["seed"] for call in record["earlier"]] == [0]


def test_the_number_of_items_is_what_certifies_half_of_tables_if_the_observed_change_is_true() -> None:
    draws = np.random.default_rng(0)
    law = np.repeat([1.0, -1.0, 0.0], [120, 80, 800])
    number = Betting().enough(law, 0.0, 0.05 / 3)
    assert number > 1000  # where betting takes the place of the exact test, which certifies more
    certified = {
        rise: Betting().p_value(
            draws.choice([1.0, -1.0, 0.0], (200, number), p=[0.1 + rise, 0.1 - rise, 0.8]), 0.0, 0.05 / 3
        )
        < 0.05 / 3
        for rise in (0.02, 0.0)
    }
    assert 0.35 < certified[0.02].mean() < 0.65
    assert certified[0.0].mean() < 0.05


def test_several_seeds_of_an_item_are_a_cluster(tmp_path: Path) -> None:
    rows = [f"q{i},{s},{seed},{int(i < 30 or (s and i < 60))}" for i in range(80) for s in (0, 1) for seed in (1, 2, 3)]
    path = tmp_path / "refused.csv"
    path.write_text("\n".join(["item,setting,seed,value", *rows]))
    [measure] = judge(path).measures
    assert (measure.name, measure.n, measure.items, measure.clusters) == ("refused", 240, 80, 80)
    assert measure.settings[1].change.value == 30 / 80


def shapes(tmp_path: Path, counts: list[int], strengths: tuple[float, ...]) -> Judgement:
    path = tmp_path / "shape.csv"
    with path.open("w") as file:
        file.write("item,strength,value\n")
        for strength, ones in zip(strengths, counts, strict=True):
            file.writelines(f"q{i},{strength},{int(i < ones)}\n" for i in range(200))
    return judge(path)


def test_the_shape_of_a_dose_response(tmp_path: Path) -> None:
    strengths = (0, 1, 2, 3)
    for counts, monotone, words in (
        ([50, 60, 90, 150], True, "certainly rises, most surely from 0 to 3"),
        ([50, 120, 150, 60], False, "Not monotone: it certainly rises from 0 to 2"),
        ([50, 51, 50, 52], None, "no rise or fall between two settings is certain"),
    ):
        judgement = shapes(tmp_path, counts, strengths)
        assert judgement.measures[0].shape.monotone is monotone
        assert words in str(judgement)
        assert "6 pairs of settings were compared" in str(judgement)


def test_a_vector_that_does_the_same_in_both_directions(tmp_path: Path) -> None:
    strengths = (-2, -1, 0, 1, 2)
    up = shapes(tmp_path, [150, 100, 50, 100, 150], strengths)
    assert [(s, sign) for s, sign, _ in up.measures[0].same_both_ways] == [(1, 1), (2, 1)]
    assert "Both signs raise it at a strength of 1, 2 from the baseline" in str(up)
    assert "not a direction for shape" in str(up)
    assert not shapes(tmp_path, [20, 30, 50, 100, 150], strengths).measures[0].same_both_ways
    assert not shapes(tmp_path, [51, 50, 50, 51, 150], strengths).measures[0].same_both_ways


def test_doses_below_the_baseline_grow_downwards(tmp_path: Path) -> None:
    judgement = shapes(tmp_path, [50, 60, 90, 150], (0, -0.1, -0.2, -0.3))
    assert [setting.setting for setting in judgement.measures[0].settings] == ["0", "-0.1", "-0.2", "-0.3"]
    assert "From 0 to -0.3 it certainly rises" in str(judgement)


def test_settings_may_be_names_and_values_grades(tmp_path: Path) -> None:
    path = tmp_path / "score.csv"
    random = np.random.default_rng(0)
    grades = {"plain": random.uniform(2, 6, 300), "kind": random.uniform(5, 9, 300)}
    path.write_text("item,setting,value\n" + "".join(
        f"q{i},{name},{value}\n" for name, values in grades.items() for i, value in enumerate(values)))  # fmt: skip
    judgement = judge(path, "score>=1", baseline="plain", ranges={"score": (0, 10)})
    [measure] = judgement.measures
    assert (measure.share, measure.low, measure.high) == (False, 0, 10)
    assert [setting.setting for setting in measure.settings] == ["plain", "kind"]
    assert measure.shape is None
    assert judgement.choice.chosen == "kind"
    assert judgement.choice.how == ("betting on the range",)
    assert measure.settings[1].change.value == pytest.approx(grades["kind"].mean() - grades["plain"].mean())
    assert "items rose and" in str(judgement)
    assert "balance" not in str(judgement)  # of counts: grades rise by different amounts
    without = judge(path, baseline="plain")
    assert "No range is declared for score" in str(without)
    assert "skew-adjusted" in without.measures[0].settings[1].change.how


def test_every_form_of_a_table_is_the_same(outcomes: Path, tmp_path: Path) -> None:
    expected = judge(outcomes, "refused>=0", {"right falls": 0.1})._replace(sources=())
    lines = list(csv.DictReader(outcomes.open()))
    text = outcomes.read_text()
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    (tmp_path / "t.tsv").write_text(text.replace(",", "\t"))
    (tmp_path / "t.jsonl").write_text("".join(
        json.dumps({**line, "value": line["value"] == "True", "setting": float(line["setting"])}) + "\n"
        for line in lines))  # fmt: skip
    for name in ("bom.csv", "t.tsv", "t.jsonl"):
        assert judge(tmp_path / name, "refused>=0", {"right falls": 0.1})._replace(sources=()) == expected, name
    halves = [[line for line in lines if line["measure"] == name] for name in ("refused", "right")]
    for name, half in zip(("a.csv", "b.csv"), halves, strict=True):
        (tmp_path / name).write_text("item,strength,value\n" + "".join(
            f"{line['item']},{line['setting']},{line['value']}\n" for line in reversed(half)))  # fmt: skip
    files = [f"refused={tmp_path / 'a.csv'}", f"right={tmp_path / 'b.csv'}"]
    two = judge(files, "refused>=0", {"right falls": 0.1})
    assert two._replace(sources=()) == expected
    assert two.sources == ("a.csv", "b.csv")


def test_data_frames_and_parquet(outcomes: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(outcomes)
    expected = judge(outcomes)._replace(sources=())
    assert judge(frame)._replace(sources=()) == expected
    frame.to_parquet(tmp_path / "t.parquet")
    assert judge(tmp_path / "t.parquet")._replace(sources=()) == expected
    with pytest.raises(ValueError, match="data frame, row 1, column value: it is nan"):
        judge(frame.assign(value=float("nan")))
    with pytest.raises(ValueError, match="not dict"):
        judge({"item": ["a"]})


class Page(HTMLParser):
    """Tags of a page, its targets, and whether all are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        if tag not in ("meta", "link", "br", "line", "circle", "polyline", "polygon", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "circle", "polyline", "polygon", "rect"):
            assert self.open.pop() == tag


def test_what_is_written(outcomes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = tmp_path / "hostile.csv"
    hostile.write_text(outcomes.read_text().replace("right", "<script>alert(1)</script>|`x`"))
    names = {kind: tmp_path / f"out.{kind}" for kind in ("html", "md", "json")}
    arguments = ["judge", str(hostile), "--benefit", "refused>=0", "--html", str(names["html"]),
                 "--markdown", str(names["md"]), "--json", str(names["json"])]  # fmt: skip
    assert command_line.main(arguments) == 0
    printed = capsys.readouterr().out
    page = Page(names["html"].read_text())
    assert not page.open
    assert "script" not in page.tags
    assert page.targets == ["data:,"]
    assert page.tags.count("svg") == 2
    record = json.loads(names["json"].read_text())
    assert record["format"] == "lightning_steer judgement 1"
    assert record["choice"]["chosen"] == "2"
    assert record["choice"]["promises"][0]["measure"] == "refused"
    assert record["measures"][0]["settings"][3]["change"]["value"] == 0.75
    assert printed.startswith(names["md"].read_text())
    assert "<script" not in printed.replace("\\<script", "")
    assert "no harm is limited" in printed.lower()


def test_the_command_needs_no_torch(outcomes: Path) -> None:
    heavy = ("torch", "lightning", "transformers", "sklearn", "matplotlib", "pandas", "pyarrow", "jinja2")
    code = (
        "import sys, lightning_steer.__main__ as m; code = m.main(sys.argv[1:]); "
        f"print([name for name in {heavy!r} if name in sys.modules], code)"
    )
    command = [sys.executable, "-c", code, "judge", str(outcomes), "--benefit", "refused>=0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.splitlines()[-1] == "[] 0"


DATA = Path(os.environ.get("LIGHTNING_STEER_DATA", "absent")) / "outcomes"
PUBLISHED = {
    "right": [(87, 0), (87, None), (90, None), (90, None), (90, None), (88, 5), (90, None), (93, None), (88, None)],
    "renellm": [(n, None) for n in (24, 36, 40, 62, 75, 90, 98, 100, 100)],
}


@pytest.mark.skipif(not DATA.is_dir(), reason="LIGHTNING_STEER_DATA names no folder with published outcomes")
def test_published_outcomes() -> None:
    start = f"{DATA}/alphasteer_llama31_8b_"
    tables = [f"right={start}gsm8k_right.csv", f"renellm={start}renellm_refused.csv",
              f"xstest={start}xstest_refused.csv", f"jailbroken={start}jailbroken_refused.csv"]  # fmt: skip
    harms = {"right falls": 0.05, "xstest[safe] rises": 0.05}
    ranges = dict.fromkeys(("right", "renellm", "xstest"), (0, 1))
    judgement = judge(tables, "renellm>=0", harms, ranges=ranges)
    for name, known in PUBLISHED.items():
        settings = list(by_name(judgement)[name].values())
        assert [round(100 * setting.value.value) for setting in settings] == [total for total, _ in known]
        assert all(fell is None or setting.fell == fell for setting, (_, fell) in zip(settings, known, strict=True))
    quarter = by_name(judgement)["right"]["-0.25"]
    assert (quarter.rose, quarter.fell) == (6, 5)
    jailbroken = list(by_name(judgement)["jailbroken"].values())
    assert [round(500 * setting.value.value) for setting in jailbroken][::7] == [332, 441]
    assert judgement.choice.chosen is None
    counts = [sum(c.promises[i].kept for c in judgement.choice.candidates) for i in range(3)]
    assert counts == [7, 1, 6]
    more = judge(tables, "renellm>=0", {**harms, "right falls": 0.1}, ranges=ranges, split=1).choice
    assert more.chosen == "-0.4"
    assert all(candidate.certified for candidate in more.candidates)


def test_a_name_ends_no_cell(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(
        "item,setting,value\n" + "".join(f"q{i},{s},{i % 2}\n" for i in range(9) for s in ("plain", "a|<b>"))
    )
    rows = [line for line in str(judge(path, baseline="plain")).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}
    assert rows[-1].startswith("| a\\|\\<b> |")
