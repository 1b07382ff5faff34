"""Write a report for each method, task and model, and one table of all."""

import math
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lightning_steer.markdown import table
from lightning_steer.report.files import write_figure, write_json, write_text
from lightning_steer.studies.mera import headline
from lightning_steer.studies.mera.certificate_check import BOUNDS, RESAMPLES
from lightning_steer.studies.mera.estimates import Key, deployed, over_draws, shown
from lightning_steer.studies.mera.figures import figures
from lightning_steer.studies.mera.judging import CURVES
from lightning_steer.studies.mera.settings import DELTA
from lightning_steer.versions import versions

DEPLOYED = ("spi", "accuracy", "balanced_accuracy", "mcc", "f1", "error", "answers_fixed", "answers_broken")
CONTROLS = ("label bias, fitted", "label bias, contextual", "constant class")
WEIGHED = ("labels weighed, then MERA", "labels weighed, then Mahalanobis MERA")


def metrics(methods: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one method's figures over its draws."""
    estimates = {name: over_draws(deployed(m, name) for m in methods) for name in DEPLOYED}
    for name in ("accuracy_base", "balanced_accuracy_base", "mcc_base", "error_base"):
        estimates[name] = over_draws(m["metrics"][name]["value"] for m in methods)
    estimates["certified"] = over_draws(float(m["certified"]) for m in methods)
    estimates["certified_bound"] = over_draws(m["bound"] for m in methods)
    estimates["spi_if_steered"] = over_draws(m["metrics"]["spi"]["value"] for m in methods)
    estimates["class_flip"] = over_draws(float(m["certified"] and m["flip"]) for m in methods)
    for name in ("edited", "labels_moved"):
        estimates[name] = over_draws(m.get(name) if m["certified"] else 0.0 for m in methods)
    repaired = [m.get("repaired", {}).get("value") if m["certified"] else 0.0 for m in methods]
    estimates["repaired"] = over_draws(repaired)
    drifts = [m["drift"] for m in methods if "drift" in m]
    estimates["reference_kl"] = over_draws(d["reference_kl"] for d in drifts)
    estimates["other_accuracy_change"] = over_draws(
        np.mean(d["other_accuracy_change"]) for d in drifts if d["other_accuracy_change"]
    )
    for name in ("accuracy", "balanced_accuracy"):
        estimates[f"{name}_beyond_label_bias"] = over_draws(
            m["beyond_bias"][name]["value"] for m in methods if "beyond_bias" in m and m["certified"]
        )
    return estimates


def write(out: Path, results: Mapping[Key, Mapping[str, Any]]) -> str:
    """Write reports, tables and figures below ``out``; return the summary."""
    columns = (
        "model, mixture, task, method, SPI deployed, certified, bound, SPI if steered, accuracy, balanced accuracy"
    )
    lines = _head(f"{columns}, MCC, repaired, others' accuracy")
    columns = "model, mixture, task, R2 by layer, cos(probe and cue), cos(pattern and cue), predicted E with planted"
    truths = _head(f"{columns}, own E with planted")
    groups = sorted({key[:2] for key in results}, key=list(dict.fromkeys(k[:2] for k in results)).index)
    for model, mixture in groups:
        draws = [result for key, result in results.items() if key[:2] == (model, mixture)]
        for task in draws[0]:
            cells = [draw[task] for draw in draws]
            for name in cells[0]["methods"]:
                of = [cell["methods"][name] for cell in cells]
                report = _report(model, mixture, task, name, of)
                write_json(out / model / _slug(f"{task} {mixture}") / _slug(name) / "report.json", report)
                lines.append(_line(model, mixture, task, name, report["metrics"]))
            truths.append(_truth(model, mixture, task, cells))
    write_text(out / "table.md", "\n".join([*lines, "", *truths]) + "\n")
    text = f"{headline.table(results)}\n\n{_verdict(results)}\n"
    write_text(out / "summary.md", text)
    for of, figure in figures(results, groups).items():
        write_figure(figure, out, _slug(" ".join(of)))
    return text


def _head(columns: str) -> list[str]:
    return table(columns.split(", "))


def _report(model: str, mixture: str, task: str, name: str, methods: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "experiment": "mera",
        "task": f"pocket {task}, {mixture}",
        "backbone": f"pocket/{model}",
        "method": name,
        "seed": 0,
        "draws": len(methods),
        "intervals": "none over draws, whose range is shown; in each draw, over test rows as each estimate says",
        "metrics": metrics(methods),
        "each_draw": list(methods),
        "versions": versions() | {"scikit-learn": version("scikit-learn")},
    }


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _line(model: str, mixture: str, task: str, name: str, m: Mapping[str, Any]) -> str:
    n = m["certified"]["n"]
    certified = f"{round(m['certified']['value'] * n)}/{n}"
    before_after = [
        f"{m[f'{figure}_base']['value']:.3f} -> {m[figure]['value']:.3f}"
        for figure in ("accuracy", "balanced_accuracy", "mcc")
    ]
    cells = [model, mixture, task, name, shown(m["spi"]), certified, f"{m['certified_bound']['value']:.3f}"]
    cells += [shown(m["spi_if_steered"]), *before_after, shown(m["repaired"]), shown(m["other_accuracy_change"])]
    return f"| {' | '.join(cells)} |"


def _truth(model: str, mixture: str, task: str, cells: Sequence[Mapping[str, Any]]) -> str:
    r2 = np.mean([cell["probes"]["r2"] for cell in cells], 0)
    names = ("cosine_probe_cue", "cosine_pattern_cue", "predicted_with_planted", "own_with_planted")
    values = (shown(over_draws(cell["truth"][name] for cell in cells)) for name in names)
    return f"| {model} | {mixture} | {task} | {' '.join(f'{v:.2f}' for v in r2)} | {' | '.join(values)} |"


def _unexplained(results: Mapping[Key, Mapping[str, Any]], form: str) -> str:
    """List the tasks that a form repairs in every draw, and better than the best label bias."""
    repaired, tasks = [], list(dict.fromkeys((*key[:2], task) for key, result in results.items() for task in result))
    for model, mixture, task in tasks:
        cells = [result[task]["methods"] for key, result in results.items() if key[:2] == (model, mixture)]
        if not all(methods[form]["certified"] for methods in cells) or "beyond_bias" not in cells[0][form]:
            continue
        spi = over_draws(deployed(methods[form], "spi") for methods in cells)
        beyond = over_draws(methods[form]["beyond_bias"]["balanced_accuracy"]["value"] for methods in cells)
        constant = over_draws(deployed(methods["constant class"], "spi") for methods in cells)
        constant_spi = constant["value"] if math.isnan(constant["high"]) else constant["high"]  # the same in every draw
        if spi["low"] > 0 and beyond["low"] > 0 and spi["low"] > constant_spi:
            repaired.append(
                f"{task} ({model}, {mixture}; SPI {shown(spi)}, balanced accuracy {shown(beyond, 3)} above)"
            )
    return (
        f"- {form}: certified in every draw, SPI above 0 and the constant class's, balanced accuracy above the fitted "
        f"label bias's, each in every draw, in {len(repaired)} of {len(tasks)} tasks"
        f"{': ' + '; '.join(repaired) if repaired else ''}."
    )


def _verdict(results: Mapping[Key, Mapping[str, Any]]) -> str:
    """State on how many tasks each form of MERA is certified, and how the controls compare."""
    lines = []
    for form in CURVES:
        certified, explained, total, harmful = 0, 0, 0, 0
        for result in results.values():
            for cell in result.values():
                method = cell["methods"][form]
                total += 1
                certified += method["certified"]
                harmful += method["certified"] and method["metrics"]["accuracy_change"]["value"] <= 0
                best = max(deployed(cell["methods"][name], "spi") for name in CONTROLS)
                explained += method["certified"] and best >= deployed(method, "spi")
        lines.append(
            f"- {form}: certified at delta {DELTA:g} in {certified} of {total} tasks and draws; {harmful} of them did "
            f"not improve held-out accuracy; in {explained} a constant class or a weighing of the labels does as well."
        )
        lines.append(_unexplained(results, form))
    for form in WEIGHED:
        methods = [cell["methods"][form] for result in results.values() for cell in result.values()]
        wins = sum(m["certified"] and m["metrics"]["accuracy_change"]["low"] > 0 for m in methods)
        lines.append(
            f"- {form}: certified in {sum(m['certified'] for m in methods)} of {len(methods)}, "
            f"beyond all that a weighing of the labels explains; "
            f"in {wins} of them the interval of the held-out change lies above 0."
        )
    encodings = [cell["encodings"] for result in results.values() for cell in result.values()]
    means = {name: over_draws(e[name] for e in encodings) for name in encodings[0]}
    lines.append(
        f"- Sparse autoencoder of the last layer: R2 {shown(means['r2'])} of a lasso on its features against "
        f"{shown(means['r2_activations'])} on activations, paired difference {shown(means['r2_gain'], 3)}; "
        f"{means['features_used']['value']:.0f} features used, {means['active_features']['value']:.0f} active in a "
        f"row, {means['variance_lost']['value']:.0%} of variance lost; {shown(means['core_seconds'], 1)} core seconds "
        "of training."
    )
    checks = [cell["promise"] for result in results.values() for cell in result.values() if cell.get("promise")]
    for bound in BOUNDS if checks else ():
        false, power = (np.array([p[f"{bound}, {kind}"] for p in checks]) for kind in ("false", "power"))
        lines.append(
            f"- {bound} bound, {RESAMPLES} resampled calibrations of each of {len(checks)} tasks' outcomes: false "
            f"certificates {false[:, 0].mean():.4f} on average, at most {false[:, 0].max():.3f} (upper end of its "
            f"interval {false[:, 2].max():.3f}), promised {DELTA:g}; power {power[:, 0].mean():.3f}."
        )
    cost = [cell["core_seconds"] for result in results.values() for cell in result.values()]
    lines.append(f"- {len(cost)} tasks and draws took {sum(cost):.0f} core seconds, {np.mean(cost):.1f} each.")
    return "\n".join(lines)
