"""Collect the reports below a folder into one table."""

import csv
import io
import json
import warnings
from pathlib import Path
from typing import Any

from lightning_steer.errors import UserError
from lightning_steer.escapes import for_markdown, for_spreadsheet
from lightning_steer.files import read_bytes
from lightning_steer.markdown import table
from lightning_steer.report.old_names import renamed
from lightning_steer.report.tables import cell


def read(folder: Path) -> list[dict[str, Any]]:
    """Read all reports below ``folder``, in order of path; raise ValueError naming a file that is not a report."""
    reports = []
    for path in sorted(folder.rglob("report.json")):
        try:
            report = json.loads(read_bytes(path).decode("utf-8"))
            missing = {"experiment", "task", "backbone", "method", "seed", "metrics"} - report.keys()
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path} is not a report ({error}): delete it, or run its test again") from error
        if missing:
            raise UserError(f"{path} is not a report: it lacks {', '.join(sorted(missing))}")
        report, is_old = renamed(report)
        if is_old:
            warnings.warn(f"{path} was written by version 0.1: its keys are read by today's names", stacklevel=2)
        reports.append({**report, "run": str(path.parent.relative_to(folder))})  # the path, whatever the file says
    return reports


HEAD = ("run", "experiment", "task", "backbone", "place", "method", "seed")
SHOWN = ("run", "backbone", "place", "method", "seed")
"""Columns of the table for readers before its metrics."""


def columns(reports: list[dict[str, Any]]) -> list[str]:
    """Return all metrics of all reports, in the order of their first appearance."""
    return list(dict.fromkeys(name for report in reports for name in report["metrics"]))


def as_markdown(reports: list[dict[str, Any]]) -> str:
    """Return a table with a row for each run, and ``value [low, high]`` for each metric."""
    names = columns(reports)
    rows = []
    for report in reports:
        metrics = (cell(report["metrics"][name]) if name in report["metrics"] else "-" for name in names)
        rows.append([*(for_markdown(report.get(name, "-")) for name in SHOWN), *metrics])
    return "\n".join(table([for_markdown(name) for name in (*SHOWN, *names)], rows)) + "\n"


def as_csv(reports: list[dict[str, Any]]) -> str:
    """Return a line for each run, with ``metric``, ``metric_low``, ``metric_high`` and ``metric_n`` for each metric."""
    names = columns(reports)
    keys = {"value": "", "low": "_low", "high": "_high", "n": "_n"}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*HEAD, *(for_spreadsheet(f"{name}{suffix}") for name in names for suffix in keys.values())])
    for report in reports:
        values = [report["metrics"].get(name, {}).get(key) for name in names for key in keys]
        writer.writerow([*(for_spreadsheet(report.get(name, "")) for name in HEAD), *values])
    return text.getvalue()
