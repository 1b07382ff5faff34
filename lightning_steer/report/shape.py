"""Check the structure of a report before drawing from a file that may be damaged or foreign."""

import json
from collections.abc import Mapping
from typing import Any

from lightning_steer.errors import UserError

LARGEST = 1e300
KEYS = ("value", "low", "high")


def check(report: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the run and the entry, if a report cannot be shown."""
    try:
        json.dumps(report, ensure_ascii=False).encode()  # half of a surrogate pair is valid JSON, but not valid text
        for name in ("experiment", "task", "backbone", "method", "run"):
            _is(report[name], str, name)
        _number(report["seed"], "seed")
        _estimates(report["metrics"], "metrics")
        for name, row in _is(report.get("baselines", {}), dict, "baselines").items():
            _estimates(row, f"baselines.{name}")
        _estimates(report.get("fitted_rows", {}), "fitted_rows")
        by_group = _is(report.get("groups", {}), dict, "groups")
        _is(by_group.get("by", ""), str, "groups.by")
        for name, row in _is(by_group.get("rows", {}), dict, "groups.rows").items():
            _estimates(row, f"groups.rows.{name}")
        for name, curve in _is(report.get("curves", {}), dict, "curves").items():
            _curve(_is(curve, dict, f"curves.{name}"), f"curves.{name}")
        for name, columns in _is(report.get("profile", {}), dict, "profile").items():
            _columns(columns, len(_is(_is(columns, dict, f"profile.{name}")["value"], list, name)), f"profile.{name}")
        for text in _is(report.get("warnings", []), list, "warnings"):
            _is(text, str, "warnings")
        for name in ("verdict", "choice", "intervals", "place"):
            _is(report.get(name, ""), str, name)
        for name, version in _is(report.get("versions", {}), dict, "versions").items():
            _is(version, str, f"versions.{name}")
        _number(report.get("budget"), "budget")
        settings = _is(report.get("dose_response", {}), dict, "dose_response")
        _is(settings.get("unit", ""), str, "dose_response.unit")
        for name in _is(settings.get("measures", []), list, "dose_response.measures"):
            _is(name, str, "dose_response.measures")
    except KeyError as error:
        raise UserError(f"{report.get('run')}/report.json lacks {error}: delete it, or run its test again") from error
    except ValueError as error:
        raise UserError(
            f"{report.get('run')}/report.json is damaged: {error}; delete it, or run its test again"
        ) from error


def _estimates(value: Any, name: str) -> None:
    for key, estimate in _is(value, dict, name).items():
        for field in (*KEYS, "n"):
            _number(_is(estimate, dict, f"{name}.{key}")[field], f"{name}.{key}.{field}")
        for field in ("clusters", "p"):
            _number(estimate.get(field), f"{name}.{key}.{field}")
        _is(estimate.get("how", ""), str, f"{name}.{key}.how")
        if estimate.get("higher_is_better") not in (True, False, None):
            raise UserError(f"{name}.{key}.higher_is_better is {str(estimate['higher_is_better'])[:40]!r}, not a bool")


def _curve(curve: dict[str, Any], name: str) -> None:
    x = _is(curve["x"], list, f"{name}.x")
    for value in x:
        _number(value, f"{name}.x", null=False)
    for key, columns in curve.items():
        if key != "x":
            _columns(columns, len(x), f"{name}.{key}")


def _columns(columns: Any, length: int, name: str) -> None:
    for key in KEYS:
        column = _is(_is(columns, dict, name)[key], list, f"{name}.{key}")
        if len(column) != length:
            raise UserError(f"{name}.{key} has {len(column)} values, not {length}")
        for value in column:
            _number(value, f"{name}.{key}")


def _number(value: Any, name: str, null: bool = True) -> None:
    """Check a number; ``null`` also accepts NaN: both stand for an unavailable figure."""
    if value is None and null:
        return
    wrong = isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > LARGEST
    if wrong or (value != value and not null):
        raise UserError(f"{name} is {str(value)[:40]!r}, not a number")


def _is(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise UserError(f"{name} is {str(value)[:40]!r}, not a {kind.__name__}")
    return value
