"""Sample logs of lm-evaluation-harness, as its version 0.4 writes them: made ones, with its keys."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_steer.outcomes import judge

NAME = "samples_pocket_qa_2026-01-02T03-04-05.678901.jsonl"


def line(i: int, right: float, **more: Any) -> dict[str, Any]:
    return {
        "doc_id": i, "doc": {"question": f"is {i} even?"}, "target": "y", "arguments": {"arg_0": "é\u2028"},
        "resps": [[["-1.0", "False"]]], "filtered_resps": [["-1.0", "False"]], "filter": "none",
        "metrics": ["acc", "acc_norm", "bpb"], "doc_hash": f"{i:064x}"[::-1], "prompt_hash": "a", "target_hash": "b",
        "acc": right, "acc_norm": 1 - right, "bpb": [0.1, 3], **more,
    }  # fmt: skip


def log(folder: Path, right: Callable[[int], bool], n: int = 120, **more: Any) -> str:
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(line(i, float(right(i)), **more), ensure_ascii=False) + "\n" for i in range(n))
    (folder / NAME).write_text(text)
    return str(folder / NAME)


def test_a_baseline_and_steered_runs(tmp_path: Path) -> None:
    runs = {"0": lambda i: i < 30, "1": lambda i: i < 90, "2": lambda i: 10 <= i < 110}
    paths = [f"{name}={log(tmp_path / name, right)}" for name, right in runs.items()]
    judgement = judge(paths, "pocket_qa_acc>=0", {"pocket_qa_acc_norm rises": 0.05}, split=1)
    acc, norm = judgement.measures
    assert (acc.name, norm.name, acc.n, acc.share) == ("pocket_qa_acc", "pocket_qa_acc_norm", 120, True)
    assert [(setting.setting, setting.rose, setting.fell) for setting in acc.settings] == [
        ("0", 0, 0),
        ("1", 60, 0),
        ("2", 80, 10),
    ]
    assert judgement.sources == tuple(f"{name}={NAME}" for name in runs)
    assert judgement.choice.chosen == "2"
    assert any("'bpb'" in note and "no number" in note for note in judgement.notes)


def test_the_format_declares_its_own_metrics_alone(tmp_path: Path) -> None:
    more = {"metrics": ["acc", "errors", "strict"], "errors": 1.0, "strict": True}
    paths = [f"{name}={log(tmp_path / name, right, **more)}" for name, right in (("0", lambda i: i < 9), ("1", bool))]
    assert judge(paths, "pocket_qa_acc>=0", {"pocket_qa_strict falls": 0.1}).choice.chosen == "1"
    with pytest.raises(ValueError, match=r"--range pocket_qa_errors=0\.\.1"):
        judge(paths, "pocket_qa_errors>=0")


def test_filters_are_measures_of_their_own(tmp_path: Path) -> None:
    paths = []
    for name in ("0", "1"):
        folder = tmp_path / name
        path = log(folder, lambda i: i < 5, n=9, filter="strict-match")
        flexible = "".join(json.dumps(line(i, 1.0, filter="flexible")) + "\n" for i in range(9))
        Path(path).write_text(Path(path).read_text() + flexible)
        paths.append(f"{name}={path}")
    names = [measure.name for measure in judge(paths).measures]
    assert names[::2] == ["pocket_qa_acc_strict-match", "pocket_qa_acc_flexible"]


def test_what_is_refused(tmp_path: Path) -> None:
    base = log(tmp_path / "0", lambda i: i < 30)
    other = log(tmp_path / "1", lambda i: i < 30, doc_hash="f" * 64)
    for sources, message in (
        ([base], "SETTING=samples_pocket_qa"),
        ([f"0={base}", f"1={other}"], "missing, though this item has other settings"),
        ([f"0={base}", f"1={base}", f"1={base}"], "stands there again"),
        ([f"0={log(tmp_path / '2', bool, metrics=None)}"], "row 1: expected doc_id and metrics"),
        ([f"0={log(tmp_path / '3', bool, acc=float('nan'))}"], "row 1, acc: it is nan"),
    ):
        with pytest.raises(ValueError, match=message):
            judge(sources)
