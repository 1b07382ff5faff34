"""A run's own outcomes, row by row: what ``judge`` says of them is what the report's kinds say."""

from pathlib import Path

import pytest
import torch

import lightning_steer as ls
from lightning_steer.errors import UserError
from lightning_steer.metrics.answers import Answers
from lightning_steer.modules import outcome_rows
from lightning_steer.statistics.kinds import Change

STRENGTHS = [0.0, 0.5, 2.0]


def columns(clusters: bool) -> dict[str, torch.Tensor]:
    right = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)) < torch.tensor([0.4, 0.4, 0.5, 0.8])
    cluster = torch.arange(60) // 5 if clusters else torch.arange(60)
    return {
        "baseline/accuracy": right[:, :1].double(),
        "strength/accuracy": right[:, 1:].double(),
        "cluster": cluster,
    }


@pytest.mark.parametrize("clusters", [True, False])
def test_judge_says_what_the_kinds_say(clusters: bool, tmp_path: Path) -> None:
    tested = columns(clusters)
    (tmp_path / outcome_rows.NAME).write_bytes(outcome_rows.packed(tested, Answers(), STRENGTHS, 0.0))
    (measure,) = ls.judge(tmp_path).measures
    change = tested["strength/accuracy"] - tested["baseline/accuracy"]
    expected = Change().estimate(change.numpy(), tested["cluster"].numpy() if clusters else None)
    judged = {setting.setting: setting.change for setting in measure.settings if setting.setting != "0"}
    assert judged.keys() == {"0.5", "2"}  # the strength that changes nothing is the baseline
    assert judged["0.5"][:3] == pytest.approx(expected[1][:3])
    assert judged["2"][:3] == pytest.approx(expected[2][:3])
    assert judged["2"].clusters == (12 if clusters else None)


def test_a_folder_without_outcomes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no outcomes\.parquet: name a table, or the folder of a run"):
        ls.judge(tmp_path)
