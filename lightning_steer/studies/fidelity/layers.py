"""Exploratory: the declared contrasts on anisotropy and on what narrow tuning lost, at every layer.

The declaration is about layer 2 alone. Models, terms, strength and tests are its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_steer.markdown import table
from lightning_steer.report.tables import number
from lightning_steer.statistics.claims import above, share_within
from lightning_steer.statistics.intervals import mean_over_units
from lightning_steer.studies.fidelity import anisotropy, declared, verdict
from lightning_steer.studies.fidelity.settings import NARROW

Parts = Mapping[str, Mapping[str, Any]]
MODELS = ("base", "tuned", *NARROW)
VARIANTS = (*verdict.EXPLAINERS, anisotropy.LENGTH)


def run(models: Mapping[str, Path], model: str, layers: Sequence[int]) -> dict[str, Any]:
    """Return a model's change of the margin with and without anisotropy, by layer, variant and term."""
    return {"model": model, "layers": verdict.without_anisotropy(models, model, layers)}


def explained(parts: Parts) -> str:
    """Return the table of what closes the gap to the base model, by layer; empty without its parts."""
    if any(f"layers-{name}" not in parts for name in MODELS):
        return ""
    rows = []
    for model in ("tuned", "narrow"):
        for layer in parts["layers-base"]["layers"]:
            without = {name: parts[f"layers-{name}"]["layers"][layer] for name in MODELS}
            _, gap = declared.explained(without, model, anisotropy.PLAIN)
            size, shares = mean_over_units(gap), ["-"] * len(VARIANTS)
            if size.low > 0:
                closed = [declared.explained(without, model, variant)[0] for variant in VARIANTS]
                shares = [str(share_within(part, gap, declared.LIMIT).estimate) for part in closed]
            rows.append(["narrow, mean of five" if model == "narrow" else model, layer, str(size), *shares])
    lines = table(["what closes the gap, by layer", "layer", "gap, nats a token", *VARIANTS], rows)
    return (
        "## What closes the gap to the base model, by layer\n\n"
        + "\n".join(lines)
        + f"\n\nStrength 1, each vector at its own length; {len(gap)} terms. Shares of the gap have 90 % intervals "
        "(Fieller), the gap has a 95 % interval. No share is given where that is not above 0.\n"
    )


def lost(parts: Parts) -> str:
    """Return the table of what narrow tuning lost, by layer; empty without its parts."""
    if any(f"verdict-{name}" not in parts for name in ("base", *NARROW)):
        return ""
    rows = []
    for layer in parts["verdict-base"]["own"]["town"]["rows"]:
        units = declared.lost(parts, int(layer))
        base = np.mean([declared.rows(parts["verdict-base"], "own", kind, "margin_change", int(layer))
                        for kind in declared.BIAS_TYPES])  # fmt: skip
        rows.append([layer, f"{base:.3f}", *map(_leads, units)])
    contrasts = [f"{contrast.name}" for contrast in declared.LOST.contrasts]
    lines = table(["what narrow tuning lost, by layer", "base model, own vector", *contrasts], rows)
    return (
        "## What narrow tuning lost, by layer\n\n"
        + "\n".join(lines)
        + "\n\nChange of the margin at strength 1, nats a token. Contrasts as declared: their mean and range over five "
        "trainings, the number of trainings in which they are above 0, and Student's one-sided p, not corrected.\n"
    )


def _leads(units: np.ndarray) -> str:
    """Return the mean and range of a contrast's units, how many are above 0, and its p-value."""
    ends = f"{units.mean():.3f} ({units.min():.3f} to {units.max():.3f})"
    return f"{ends}; {(units > 0).sum()} of {len(units)}; p {number(above(units).p)}"
