"""A prediction names its row in the data, and the run, result and mismatches that it is of."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import folder_with_models, given
from test_rows_are_readable import fit, here, labelled, model, pairs, run  # noqa: F401

from lightning_steer.__main__ import main
from lightning_steer.cache import fingerprints
from lightning_steer.runs import saving

models = pytest.fixture(scope="module", name="models")(folder_with_models)
LONG = "it is so that all of us saw them go up to the old town again " * 2


def written() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The lines and the record of the only run."""
    (path,) = Path("logs").rglob("predictions-0.jsonl")
    about = path.with_name("predictions.json").read_bytes()
    lines = [json.loads(line) for line in path.read_text().split("\n") if line]
    assert {line["of"] for line in lines} == {sha256(about).hexdigest()[:12]}
    return lines, json.loads(about)


def test_rows_keep_their_place_and_name_where_others_are_skipped(model: Path, here: Path) -> None:  # noqa: F811
    rows = [
        {
            "prompt": f"{LONG * (i % 3 == 1)}the cat is {'abcdefghijklmnopqrstuvwx'[i]}",
            "positive": "yes",
            "negative": "no",
        }
        for i in range(24)
    ]
    more = [*pairs(rows), "--data.init_args.select_share=0.25", "--data.init_args.fit_share=0.25"]
    skip, cut = (f"--data.init_args.too_long={rule}" for rule in ("skip", "truncate_left"))
    assert fit("steer_behaviour", model, *more, skip) == 0
    assert run("predict", "steer_behaviour", model, *more, skip) == 0
    lines, about = written()
    assert about["mismatches"] == []
    assert any("skipped" in sentence for sentence in about["warnings"])
    assert run("predict", "steer_behaviour", model, *more, cut, "--accept_mismatch=true") == 0
    every, about = written()
    assert any("fitted rows" in sentence for sentence in about["mismatches"])
    assert [line["row"] for line in every] == list(range(len(every)))
    assert len({line["id"] for line in every}) == len(every) > len(lines)
    assert {line["id"] for line in lines} == {line["id"] for line in every if (int(line["id"]) - 1) % 3 != 1}
    same = {line["id"]: line for line in every}
    for line in lines:
        assert line["row"] == same[line["id"]]["row"]
        torch.testing.assert_close(
            *(torch.tensor(line_of["log_probabilities"]) for line_of in (line, same[line["id"]]))
        )


def test_predictions_name_their_result(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models)
    assert main(given("fit", "steer_toy", "mean_difference")) == 0
    assert main(given("predict", "steer_toy", "mean_difference", "--trainer.limit_predict_batches=1")) == 0
    lines, about = written()
    assert [line["id"] for line in lines] == [None] * len(lines)
    saved = saving.load(Path(about["checkpoint"]))
    assert about["result"] == fingerprints.of_tensors(saved["state_dict"])
    assert "limit_predict_batches" in about["warnings"][0]
