"""Translate the keys of version 0.1 reports to current names."""

from collections.abc import Mapping
from typing import Any

METRICS = {
    "target": "target_accuracy",
    "kept": "target_unchanged",
    "others": "off_target_accuracy",
    "exact": "exact_match",
    "mean60": "mean_accuracy",
    "0->1": "answers_fixed",
    "1->0": "answers_broken",
    "0->0": "answers_still_wrong",
    "1->1": "answers_still_right",
    "wanted": "intended_preferred",
    "edited": "intervention_rate",
    "neutral_kl": "reference_kl",
    "neutral_kl_p95": "reference_kl_p95",
}
METRICS |= {f"{old}_change": f"{new}_change" for old, new in METRICS.items()}
BASELINES = {"unsteered": "baseline", "random": "random_control", "site_mean": "mean_ablation"}


def renamed(report: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return a report with current keys, and whether any was renamed; other entries are unchanged."""
    groups = report.get("baselines")
    if not isinstance(groups, dict) or not groups.keys() & BASELINES.keys():
        return dict(report), False
    changed = dict(report)
    for entry in ("metrics", "fitted_rows"):
        if isinstance(report.get(entry), dict):
            changed[entry] = _keys(report[entry])
    changed["baselines"] = {
        BASELINES.get(name, name): _keys(figures) if isinstance(figures, dict) else figures
        for name, figures in groups.items()
    }
    curves = report.get("curves")
    if isinstance(curves, dict):
        changed["curves"] = {name: _keys(curve) if isinstance(curve, dict) else curve for name, curve in curves.items()}
    shown = report.get("dose_response")
    if isinstance(shown, dict) and isinstance(shown.get("measures"), list):
        changed["dose_response"] = {**shown, "measures": [METRICS.get(str(name), name) for name in shown["measures"]]}
    return changed, True


def _keys(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {METRICS.get(name, name): figure for name, figure in figures.items()}
