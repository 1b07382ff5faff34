"""Labelled rows that share something are one group: in one split, in every interval, and in the certificate."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from test_rows_are_readable import labelled as labelled_options
from test_rows_are_readable import model, run  # noqa: F401

from lightning_steer.data import readable
from lightning_steer.data.labelled_rows import LabelledExample, shared_text
from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import LabelledFile, PocketTask
from lightning_steer.data.splits import split, stratified
from lightning_steer.metrics.answers import Answers
from lightning_steer.selection.rule import Certified

LABELS = {"a": ["ham"], "b": ["spam"]}


def rows_in_groups(groups: int, each: int) -> list[dict[str, str]]:
    return [
        {"text": f"question {j} on passage {i}", "kind": "ab"[(i + j) % 2], "passage": f"p{i}"}
        for i in range(groups)
        for j in range(each)
    ]


def source(folder: Path, rows: list[dict[str, str]], kind: str = "jsonl", **settings: str | None) -> LabelledFile:
    path = folder / f"own.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]))
    columns = {"label_column": "kind", "group_column": "passage", **settings}
    return LabelledFile(str(path), "{text} :", LABELS, **columns)  # type: ignore[arg-type]


def data_module(task: LabelledFile, train: int = 40, calibration: int = 30, test: int = 30) -> MERADataModule:
    data = MERADataModule(task, train=train, calibration=calibration, test=test)
    data.setup()
    return data


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_group_lies_in_one_split(tmp_path: Path, kind: str) -> None:
    data = data_module(source(tmp_path, rows_in_groups(30, 5), kind))
    parts = [{e.group for e in part} for part in (data.train, data.calibration, data.test)]
    assert [len(part) for part in parts] == [8, 6, 6]
    assert len(set.union(*parts)) == 20
    for part in (data.train, data.calibration, data.test):  # whole groups
        assert len(part) == 5 * len({e.group for e in part})
    batch = next(iter(data.val_dataloader()))
    passages = [re.findall(r"passage \d+", question.prompt)[0] for question in batch.x]
    together = torch.tensor([[a == b for a in passages] for b in passages])
    assert torch.equal(batch.cluster[:, None] == batch.cluster, together)


def test_how_groups_are_drawn_does_not_depend_on_their_size() -> None:
    groups = [f"g{i}" for i in range(60) for _ in range(1 + 9 * (i % 2))]
    labels = [i % 2 for i in range(len(groups))]
    small = [len({g for r in split(labels, [50, 50, 50], seed, groups)[1] if (g := groups[r]) and int(g[1:]) % 2 == 0})
             for seed in range(200)]  # fmt: skip
    assert sum(small) / 200 == pytest.approx(4.5, abs=0.4)


def test_groups_of_one_row_are_split_as_rows_are() -> None:
    labels = [0, 1, 1] * 20
    assert split(labels, [20, 20, 10], 3, [f"g{i}" for i in range(60)]) == stratified(labels, [20, 20, 10], 3)


def false_certificates(cluster: torch.Tensor, group: torch.Tensor, sets: int) -> int:
    """Count certificates of outcomes that are alike within a group and of which gains are as likely as harms."""
    random, false_count = torch.Generator().manual_seed(0), 0
    count, change = int(group.max()) + 1, Answers().change
    for _ in range(sets):
        base, after = ((torch.rand(count, generator=random) < 0.5).double()[group] for _ in range(2))
        choice = Certified(delta=0.01).choose([1.0], base, after[:, None], after[:, None], change, cluster)
        false_count += choice.index is not None
    return false_count


def test_a_certificate_counts_groups_and_by_rows_it_would_be_void(tmp_path: Path) -> None:
    data = data_module(source(tmp_path, rows_in_groups(60, 5)), 50, 150, 50)
    batches = list(data.val_dataloader())
    cluster = torch.cat([batch.cluster for batch in batches])
    group = cluster.unique(return_inverse=True)[1]
    assert false_certificates(cluster, group, 400) <= 10
    assert false_certificates(torch.arange(len(group)), group, 100) >= 5  # what the rows alone would have certified


@pytest.mark.parametrize(
    ("settings", "rows", "message"),
    [
        ({"group_column": "page"}, rows_in_groups(30, 5), r"row 1, has no column 'page'; its columns are text, kind"),
        ({}, [{**row, "passage": ""} for row in rows_in_groups(30, 5)], r"row 1, has nothing in column 'passage'"),
        ({}, rows_in_groups(12, 10), r"some 4 \+ 3 \+ 3|some 10 groups of 10.0 rows|but there are 9 groups"),
    ],
)
def test_groups_that_cannot_be_had_are_refused(tmp_path: Path, settings, rows, message: str) -> None:
    task = source(tmp_path, rows if len(rows) > 130 else rows[:90], **settings)
    with pytest.raises(ValueError, match=message):
        data_module(task)


def test_rows_that_share_a_passage_are_named_where_no_group_says_so(tmp_path: Path) -> None:
    rows = [
        {**row, "text": f"passage number {row['passage']} tells of many things and their places\\n{row['text']}"}
        for row in rows_in_groups(30, 5)
    ]
    rows = [{**row, "text": row["text"].replace("\\n", "\n")} for row in rows]
    alone = data_module(source(tmp_path, rows, group_column=None))
    assert any("150 of 150 rows share a line" in note for note in readable.notes(alone))
    assert readable.notes(data_module(source(tmp_path, rows))) == []
    template = [LabelledExample(f"the very same long line of a template, in every prompt\n{i}", 0) for i in range(9)]
    assert shared_text(template) == ""


def test_pocket_prompts_share_nothing() -> None:
    for task in ("sms_spam", "yes_no_question", "mmlu_high_school"):
        assert shared_text(PocketTask(task).examples(400, 0)) == ""


def test_a_prompt_with_two_labels_is_named(tmp_path: Path) -> None:
    rows = rows_in_groups(30, 5)
    data = data_module(source(tmp_path, [*rows, {**rows[0], "kind": "b"}]))
    assert any(note.startswith("1 prompts occur with more than one label") for note in readable.notes(data))


def test_groups_reach_the_report_and_the_certificate(model: Path, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    more = labelled_options(["x"])  # writes a file that is replaced
    rows = [{**row, "text": f"the cat {row['text'][9]} {row['passage']}"} for row in rows_in_groups(40, 3)]
    Path("own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    more += ["--data.init_args.source.init_args.group_column=passage", "--seed_everything=0"]
    assert run("fit", "steer_mera", model, *more) == 0
    assert run("test", "steer_mera", model, *more, "--ckpt_path=checkpoints/steer_mera/mera/best.ckpt") == 0
    report = json.loads(next(Path("logs").rglob("report.json")).read_text())
    assert (report["metrics"]["accuracy"]["n"], report["metrics"]["accuracy"]["clusters"]) == (18, 6)
    assert "6 clusters" in report["choice"]
