"""Sample logs of lm-evaluation-harness (``--log_samples``): a file for each task and run; each run is a setting.

A line holds ``doc_id``, ``doc_hash``, ``filter``, the names of its ``metrics``, and the value of each under its name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_steer.errors import UserError
from lightning_steer.outcomes.formats import json_value
from lightning_steer.outcomes.rows import Rows, check_name

NAME = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d\d-\d\dT[\d.:-]+)?")
"""Pattern of file names, which end in the time of the run."""
SHARES = ("acc", "acc_norm", "acc_mutual_info", "exact_match")
"""The harness's own metrics between 0 and 1; a task's own metrics may have any range."""


def is_samples(row: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is a line of a sample log."""
    return "doc_id" in row and "item" not in row


def read_samples(path: Path, setting: str | None, lines: list[tuple[int, str]], rows: Rows) -> list[str]:
    """Add a row for every metric of every document, and return the names of unread metrics.

    Args:
        path: the file, whose name contains the task.
        setting: the setting of this run.
        lines: line numbers and texts.
        rows: the table that rows are added to.

    Raises:
        ValueError: naming the line.
    """
    if setting is None:
        raise UserError(
            f"{path.name} is a sample log of lm-evaluation-harness, whose setting is not named: write "
            f"SETTING={path.name}, with 0 for the run without steering"
        )
    match = NAME.fullmatch(path.stem)
    task = match["task"] if match else path.stem
    unread: dict[str, None] = {}
    for line, text in lines:
        where = f"{path.name}, row {line}"
        row = json_value(where, text)
        metrics = row.get("metrics") if isinstance(row, dict) else None
        if not isinstance(metrics, list) or not is_samples(row):
            raise UserError(
                f"{where}: expected doc_id and metrics, as lm-evaluation-harness logs them, not {text[:60]!r}"
            )
        item = check_name(f"{row['doc_id']} {str(row.get('doc_hash', ''))[:12]}".strip(), where, "doc_id")
        suffix = "" if row.get("filter", "none") == "none" else f"_{row['filter']}"
        for metric in metrics:
            value = row.get(metric)
            if not isinstance(value, (bool, int, float)):
                unread[f"{metric!r} of {path.name}, which is no number"] = None
                continue
            if value != value or abs(value) == float("inf"):
                raise UserError(
                    f"{where}, {metric}: it is {value}, no finite number: leave such a document out of all runs"
                )
            measure = check_name(f"{task}_{metric}{suffix}", where, "metrics")
            if metric in SHARES or isinstance(value, bool):
                rows.ranges[measure] = (0.0, 1.0)
            rows.add(line, (item, setting, measure, None, None, None, None, None), float(value), False)
    return list(unread)
