"""A report says how many rows and clusters stand behind it, which of them are not new, and how each row changed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT

from lightning_steer.__main__ import main
from lightning_steer.data.behaviours.module import TEST, BehaviourDataModule
from lightning_steer.data.behaviours.sources import PairsFile
from lightning_steer.data.clusters import connected
from lightning_steer.metrics import AttributeEffect, BehaviourEffect, StereoSetEffect
from lightning_steer.modules.cautions import at_the_edge, few_to_choose_on, old_continuations
from lightning_steer.modules.damage import undisturbed
from lightning_steer.modules.parts import described
from lightning_steer.report.card import comparison, legend
from lightning_steer.report.runs import read
from lightning_steer.versions import versions

QUIET = ["--trainer.enable_progress_bar=false", "--model.init_args.random_draws=3", "--model.init_args.resamples=50"]
ENDINGS = [("kind", "rude"), ("polite", "blunt"), ("honest", "sly"), ("clever", "lazy")]
MANY = [(f"good {i}", f"bad {i}") for i in range(12)]  # of 24 rows: texts of which some recur
PLACES = ["hill", "mill", "town", "harbour", "island", "forest", "valley", "river"]
TRADES = ["bakers", "potters", "weavers"]


def pairs(folder: Path, endings: list[tuple[str, str]], rows: int = 24) -> Path:
    lines = [
        {"prompt": f"The {PLACES[i % 8]} {TRADES[i // 8]} are", "positive": positive, "negative": negative}
        for i, (positive, negative) in enumerate(endings[i % len(endings)] for i in range(rows))
    ]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture(scope="module")
def report(pocket_decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "configs").symlink_to(ROOT / "configs")
        source = "--data.init_args.source"
        more = [
            "--config=configs/steer_behaviour.yaml",
            "--config=configs/methods/mean_difference.yaml",
            f"--model.init_args.backbone.init_args.llm={pocket_decoder}",
            f"{source}=PairsFile",
            f"{source}.init_args.path={pairs(folder, ENDINGS)}",
        ]
        for command in ("fit", "test"):
            assert main([command, *more, *QUIET]) == 0
        (only,) = read(folder / "logs")
        text = (folder / "logs" / only["run"] / "report.md").read_text()
    return only | {"text": text}


def test_the_change_of_what_is_wanted_is_estimated_row_by_row(report: dict[str, Any]) -> None:
    change, plain = report["metrics"]["intended_preferred_change"], report["baselines"]["baseline"]
    assert change["value"] == pytest.approx(
        report["metrics"]["intended_preferred"]["value"] - plain["intended_preferred"]["value"]
    )
    assert change["low"] <= change["value"] <= change["high"]
    assert plain["intended_preferred_change"] == {
        **change,
        "value": 0.0,
        "low": None,
        "high": None,
        "how": "by definition",
    }
    assert "a change of " in report["verdict"]
    assert f"[{100 * change['low']:.1f}, {100 * change['high']:.1f}]" in report["verdict"]


def test_a_change_of_rows_is_narrower_than_that_of_two_means() -> None:
    base = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    effect = BehaviourEffect()
    batch = type("Batch", (), {"x": [], "negative": []})()
    steered = base.clone()
    steered[:20] = steered[:20].flip(1)  # 20 of 400 rows change sides
    columns = effect.rows(base, steered.unsqueeze(0), batch)
    estimates = effect.estimates({name: column.T for name, column in columns.items()}, None)
    width = {
        name: estimates[name][0].high - estimates[name][0].low
        for name in ("intended_preferred", "intended_preferred_change")
    }
    assert width["intended_preferred_change"] < width["intended_preferred"] / 2


@pytest.mark.parametrize("evaluation", [BehaviourEffect, AttributeEffect, StereoSetEffect])
def test_every_paired_change_has_a_kind_and_is_reported(evaluation: type[BehaviourEffect]) -> None:
    assert evaluation.paired
    for name in evaluation.paired:
        assert f"{name}_change" in evaluation.kinds
        assert f"{name}_change" in {*evaluation.headline, *evaluation.also}


def test_the_report_says_how_many_rows_and_clusters_there_were(report: dict[str, Any]) -> None:
    assert {name: report["data"][name]["rows"] for name in ("fitted", "selection", "held_out")} == {
        "fitted": 10,
        "selection": 2,
        "held_out": 12,
    }
    assert report["data"]["held_out"]["clusters"] == 12
    assert "Data: fitted to 10 rows" in report["text"]
    assert "tested on 12 rows" in report["text"]
    assert "All rows use 4 pairs of continuations" in report["text"]


def test_parts_of_a_single_row_are_counted() -> None:
    single = {"cluster": torch.tensor(3), "continuations": torch.tensor(7)}
    pair = {"cluster": torch.tensor([1, 1]), "continuations": torch.tensor([7, 8])}
    data = described({"fitted": pair, "selection": single, "held_out": pair})
    assert data["selection"] == {"rows": 1, "clusters": 1}
    assert data["held_out"] == {"rows": 2, "clusters": 1}
    assert data["repeated"] == {"distinct": 2, "used": 2, "held_out": 0}


def test_rows_that_share_a_key_belong_together_through_others_too() -> None:
    assert connected([("a", 1), ("b", 2), ("c", 1), ("c", 3), ("d",), ("e", 2)]) == [0, 1, 0, 0, 2, 1]
    assert connected([("a",)]) == [0]


@pytest.mark.parametrize(
    ("endings", "tied"),
    [
        (MANY, True),
        ([*MANY[:-1], MANY[0][::-1]], True),  # whichever of them is wanted
        ([*MANY[:-1], ("good 0", "bad 1")], True),  # one in common is not both
        (ENDINGS, False),  # each in six rows: labels tie no rows
        ([("Yes", "No"), ("No", "Yes")], False),
    ],
)
def test_rows_with_the_same_continuations_are_one_cluster(
    endings: list[tuple[str, str]], tied: bool, tmp_path: Path
) -> None:
    data = BehaviourDataModule(PairsFile(str(pairs(tmp_path, endings))))
    data.setup()
    every = [set(part) for part in data.clusters]
    rows = data.parts[TEST]
    assert len(rows) == 12
    different = {frozenset((row.positive, row.negative)) for row in rows}
    assert len(different) < 12
    assert len(every[TEST]) == (len(different) if tied else 12)
    assert not every[0] & every[1] | every[0] & every[2] | every[1] & every[2]


@pytest.mark.parametrize(
    ("strength", "strengths", "possible", "words"),
    [
        (2.0, [0.5, 1.0, 2.0], (0.0, 9.0), "largest strength tried, 2, was chosen: larger"),
        (0.5, [2.0, 1.0, 0.5], (0.0, 9.0), "smallest strength tried, 0.5, was chosen: smaller"),
        (1.0, [1.0], (0.0, 9.0), "Only one strength was tried"),
        (1.0, [0.5, 1.0, 2.0], (0.0, 9.0), None),
        (2.0, [0.5, 1.0, 2.0], (0.0, 2.0), None),  # there is none beyond
        (0.0, [0.5, 1.0, 2.0], (0.0, 9.0), None),  # nothing is steered
    ],
)
def test_a_strength_at_the_edge_is_named(
    strength: float, strengths: list[float], possible: tuple[float, float], words: str | None
) -> None:
    sentences = at_the_edge(strength, strengths, possible)
    assert len(sentences) == (words is not None)
    assert words is None or words in sentences[0]


def test_few_rows_to_choose_on_are_named(report: dict[str, Any]) -> None:
    assert few_to_choose_on({"rows": 20, "clusters": 2}, certified=False)[0].count("20 rows in 2 clusters") == 1
    assert "a single row" in few_to_choose_on({"rows": 1, "clusters": 1}, certified=False)[0]
    assert not few_to_choose_on({"rows": 20, "clusters": 2}, certified=True)
    assert not few_to_choose_on({"rows": 20, "clusters": 20}, certified=False)
    assert any("too few to tell strengths apart" in warning for warning in report["warnings"])


def test_a_result_for_two_labels_is_not_said_to_hold_for_texts() -> None:
    data = {"held_out": {"rows": 9, "clusters": 9}, "repeated": {"distinct": 1, "used": 9, "held_out": 9}}
    assert "the same two continuations" in old_continuations(data)[0]
    data["repeated"] |= {"distinct": 2}
    assert "All rows use 2 pairs" in old_continuations(data)[0]
    data["repeated"] |= {"used": 4}
    assert "4 of the 9 held-out rows have two continuations that rows have" in old_continuations(data)[0]
    assert not old_continuations({**data, "repeated": {"distinct": 9, "used": 0, "held_out": 0}})
    assert not old_continuations({"held_out": {"rows": 9, "clusters": 9}})


def test_the_record_names_all_that_computes(report: dict[str, Any]) -> None:
    assert {"python", "torch", "transformers", "tokenizers", "numpy"} <= versions().keys()
    assert report["versions"] == versions()


def test_the_price_stands_in_the_table_beside_the_effect_and_the_baseline() -> None:
    drift = {name: {"value": 2.0, "low": 1.0, "high": 3.0, "n": 9, "clusters": None, "how": "a way"}
             for name in ("reference_kl", "perplexity_ratio")}  # fmt: skip
    plain = undisturbed(drift)
    assert [plain[name]["value"] for name in drift] == [0.0, 1.0]
    ways = {"intended_preferred": True, "reference_kl": False, "perplexity_ratio": None}
    ranked = {name: {**drift["reference_kl"], "higher_is_better": way} for name, way in ways.items()}
    baselines = {"baseline": {"intended_preferred": drift["reference_kl"], **plain}, "random_control": ranked}
    shown = {
        "method": "M",
        "fitted_rows": {},
        "baselines": baselines,
        "metrics": {"intended_preferred": drift["reference_kl"], **drift},
    }
    table = comparison(shown)
    assert table["baseline (unsteered)"].keys() == table["M"].keys() == {"intended_preferred", *drift}
    lines = legend(shown).splitlines()
    assert [line.split("|")[3].strip() for line in lines[2:]] == ["higher", "lower", "-"]
    assert all(line.split("|")[4].strip() == "9" for line in lines[2:])
