"""The report's question on the report's network: many attributes, 64 pairs, with and without the by-pass."""

from pathlib import Path
from typing import Any

import torch

from lightning_steer.metrics.bypass import bypass
from lightning_steer.studies.toy import adapters, pools
from lightning_steer.studies.toy.law import gap
from lightning_steer.studies.toy.networks import clean_accuracy, trained
from lightning_steer.studies.toy.settings import NetworkKind, ToyCell

PAIRS, MANY, TEST_ROWS = 64, 2048, 400
RECIPES = {"learned vector": (300, 1e-2), "LoReFT 8": (1000, 2e-2)}
"""Steps and learning rate."""
LOW = (0.5, 1.0, 1.5, 2.0)
"""Strengths at which a reader of the paper would have tried the vector."""


@torch.no_grad()
def vectors(kind: NetworkKind, networks: int, attributes: int, folder: Path) -> dict[str, Any]:
    """Measure the mean difference on ``attributes`` single targets of every network, ``[N][T]`` each.

    Measured at 64 pairs (strength chosen among them), at 2,048 pairs, and with the old value known; at low strengths on
    held-out and on training negatives; with the by-pass score and the oracle patch.
    """
    cell = ToyCell("report's network", kind.residual, kind, 1)
    ensemble = trained(kind, networks, folder)
    fit, select, test = (
        pools.draw(cell, ensemble, networks, attributes, split, rows)
        for split, rows in ((pools.FIT, MANY), (pools.SELECT, 200), (pools.TEST, TEST_ROWS))
    )
    family, strengths = adapters.CLOSED_FORMS["mean difference"]
    fit_rows, selection_rows = adapters.budget(PAIRS)
    small = adapters.closed_form(family, strengths, ensemble, fit.first(fit_rows), select.first(selection_rows), test)
    large = adapters.closed_form(family, strengths, ensemble, fit, select, test)
    v = adapters.MeanDifference(fit.h.shape[-1]).fit(fit.first(fit_rows).activations())
    at_low = {}
    for name, pool in (("held-out negatives", test), ("training negatives", fit.first(fit_rows))):
        scores = adapters.read(ensemble, adapters.steer(v, pool.h, torch.tensor(LOW)), pool)
        at_low[name] = adapters.judge(scores, pool)[1].mean(-1).tolist()
    gaps = (
        gap(ensemble, h, x, test)
        for h, x in ((test.h, test.x), (test.h_positive, test.x), (test.h_positive, test.x_positive))
    )
    accuracy, exact = clean_accuracy(ensemble, kind, networks)
    patched = adapters.result(test.h_positive, torch.ones(networks, attributes), ensemble, test)
    return {
        "attributes": [
            [target_set[0] for target_set in pools.target_sets(cell, i, attributes)] for i in range(networks)
        ],
        "exact_64_pairs": small.exact.tolist(),
        "target_64_pairs": small.target.tolist(),
        "strength_64_pairs": small.strength.tolist(),
        "exact_2048_pairs": large.exact.tolist(),
        "told_old_value": adapters.told_old_value(ensemble, fit, test).exact.tolist(),
        "oracle_patch": patched.exact.tolist(),
        "target_at_low_strength": {"strengths": LOW, **at_low},
        "bypass": bypass(*gaps).tolist(),
        "clean_accuracy": accuracy.tolist(),
        "clean_exact": exact.tolist(),
    }


def trained_methods(kind: NetworkKind, networks: int, attributes: int, share: float, folder: Path) -> dict[str, Any]:
    """Return exact match ``[N][T]`` of learned vector and LoReFT at 64 pairs, trained as in their configs."""
    cell = ToyCell("report's network", kind.residual, kind, 1)
    ensemble = trained(kind, networks, folder)
    fit, select, test = (
        pools.draw(cell, ensemble, networks, attributes, split, rows)
        for split, rows in ((pools.FIT, PAIRS), (pools.SELECT, PAIRS), (pools.TEST, TEST_ROWS))
    )
    exact_match = {}
    for name, (steps, rate) in RECIPES.items():
        steps = max(1, round(share * steps))
        results = adapters.trained(
            adapters.TRAINED[name], name, ensemble, fit, select, test, [PAIRS], steps, rate, adapters.MAP_STRENGTHS
        )
        exact_match[name] = results[0].exact.tolist()
    return exact_match
