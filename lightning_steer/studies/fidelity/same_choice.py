"""Exploratory: random directions that may choose layer and strength as the narrow models' own vector may.

The declared dose has no such control. A random direction is one direction a layer, as long as the own vector there, and
the same in every training and for both bias types. Its layer and strength are chosen for each model and bias type by
the same terms, strengths and budget.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_steer.markdown import table
from lightning_steer.statistics.claims import above
from lightning_steer.studies.fidelity import declared, verdict
from lightning_steer.studies.fidelity.cells import random_cells
from lightning_steer.studies.fidelity.settings import BIAS_TYPES, DRAWS, NARROW, Arm
from lightning_steer.studies.fidelity.subject import Subject, added, directions
from lightning_steer.studies.fidelity.sweep import rows_of

SEED = 100
"""A layer's directions are drawn with this seed plus the number of the layer."""


def chosen(subject: Subject, vectors: Mapping[int, Tensor]) -> list[dict[str, Any]]:
    """Return ``[R]`` chosen doses, ``{"layer", "strength", "fidelity"}``; fidelity is the mean over testing terms.

    Args:
        subject: model and terms.
        vectors: R vectors of each layer, ``{layer: [R, d]}``.
    """
    llm, test = subject.llm, subject.test
    seen = {k: verdict.judged(subject, llm.sites[k], v) for k, v in vectors.items()}
    doses = [
        declared.chosen(
            {
                name: {str(k): values[i][r].tolist() for k, values in seen.items()}
                for i, name in enumerate(("select", "kl"))
            }
        )
        for r in range(len(next(iter(vectors.values()))))
    ]
    base = added(llm, test.contrasts, None, torch.zeros(1, 1))[0]
    results = []
    for r, (layer, i) in enumerate(doses):
        scores = added(llm, test.contrasts, llm.sites[layer], verdict.STRENGTHS[i] * vectors[layer][r : r + 1])
        fidelity = np.mean(verdict.by_term(rows_of(base, scores, "suppress")["fidelity"], test.term))
        results.append({"layer": layer, "strength": verdict.STRENGTHS[i], "fidelity": float(fidelity)})
    return results


@torch.no_grad()
def run(models: Mapping[str, Path], model: str, layers: Sequence[int], draws: int = DRAWS) -> dict[str, Any]:
    """Return ``{bias type: [draws]}`` of :func:`chosen` for random directions as long as the model's own vector."""
    result = {}
    for kind in BIAS_TYPES:
        subject = Subject(Arm(model, model, model), models, kind, verdict.SEED)
        own = {layer: subject.vectors[subject.llm.sites[layer]] for layer in layers}
        drawn = {k: directions(draws, len(v), float(v.norm()), SEED + k) for k, v in own.items()}
        result[kind] = chosen(subject, drawn)
    return {"model": model, "chosen": result}


def text(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of the own vector beside random directions; empty without them."""
    if any(f"random-{name}" not in parts or f"verdict-{name}" not in parts for name in NARROW):
        return ""
    own, kinds = declared.best(parts, "own"), [parts[f"random-{name}"]["chosen"].values() for name in NARROW]
    drawn = np.array([np.mean([[d["fidelity"] for d in doses] for doses in of], axis=0) for of in kinds])  # [seeds, D]
    draws = drawn.shape[1]
    head = ["same choice of layer and strength", "fidelity, own vector", f"{draws} random directions: median (range)",
            "at or above the own vector", "rank p"]  # fmt: skip
    named = [f"training {name[7:]}" for name in NARROW] + ["mean of five"]
    columns = zip(named, [*own, own.mean()], [*drawn, drawn.mean(0)], strict=True)
    lines = table(
        head,
        [
            [name, f"{value:.3f}", cell, f"{(values >= value).sum()} of {draws}", p]
            for name, value, values in columns
            for cell, p in [random_cells(values.tolist(), float(value))]
        ],
    )
    level = 0.05 / len(declared.DOSE.contrasts)
    shown = sum(above(values, 0, len(declared.DOSE.contrasts)).p <= level for values in drawn.T)
    return (
        "## Random directions with the same choice as the narrow models' own vector\n\n"
        + "\n".join(lines)
        + f"\n\nMean over both bias types. Above 0 in all five trainings: {(drawn > 0).all(0).sum()} of {draws} random "
        f"directions. Student's t over five trainings has a one-sided p of at most {level:g} (Holm's first level) for "
        f"{shown} of {draws}, and for the own vector {above(own, 0, len(declared.DOSE.contrasts)).p:.2g}.\n"
    )
