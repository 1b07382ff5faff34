"""Describe a measure: its values and changes at every setting, in the order of the dose, and the dose's shape."""

import math

import numpy as np
from numpy.typing import NDArray

from lightning_steer.outcomes import positions
from lightning_steer.outcomes.records import MeasureOutcome, SettingOutcome
from lightning_steer.outcomes.table import Measure
from lightning_steer.statistics import dose_response
from lightning_steer.statistics.estimate import Estimate
from lightning_steer.statistics.kinds import Fixed, Mean, Share


def describe(measure: Measure, directed: bool) -> MeasureOutcome:
    """Return all units' outcomes, settings in the order of the dose; ``directed``: a direction may exist for it."""
    strengths = [setting.strength for setting in measure.settings]
    order = _dose_order(measure)
    values = _values(measure, measure.values.T)
    changes = measure.values - measure.values[0]
    estimates = _change(measure, changes.T, measure.cluster)
    by_group = _by_group(measure, changes)
    n = measure.values.shape[1]
    zero = Fixed(0.0).estimate(np.zeros(n), measure.cluster)[0]
    settings = tuple(
        SettingOutcome(
            measure.settings[i].name,
            strengths[i],
            values[i],
            estimates[i] if i else zero,
            int((changes[i] > 0).sum()),
            int((changes[i] < 0).sum()),
            {group: by_group[group][i] for group in by_group} if i else {},
        )
        for i in order
    )
    shape, same_both_ways = None, []
    bounds = measure.share, measure.low, measure.high, measure.cluster
    if None not in strengths and len(strengths) > 2 and (measure.share or math.isfinite(measure.high - measure.low)):
        shape = dose_response.shape(measure.values[order], *bounds)
        baseline_strength = measure.settings[0].strength
        shifted = [float(s) - baseline_strength for s in strengths if s is not None and baseline_strength is not None]
        same_both_ways = dose_response.both_signs(measure.values, shifted, *bounds) if directed else []
    clusters = None if measure.cluster is None else len(np.unique(measure.cluster))
    return MeasureOutcome(
        measure.name, measure.share, measure.low, measure.high, n, len(set(measure.items)), clusters, settings, shape,
        tuple(same_both_ways), positions.describe(measure) if directed else None,
    )  # fmt: skip


def _dose_order(measure: Measure) -> NDArray:
    """Return settings by strength; in reverse if all are below the baseline, so that the dose grows."""
    strengths = [setting.strength for setting in measure.settings]
    if None in strengths:
        return np.arange(len(strengths))
    numbers = np.array(strengths, dtype=float)
    return np.argsort(-numbers if (numbers <= numbers[0]).all() else numbers)


def _values(measure: Measure, columns: NDArray) -> list[Estimate]:
    kind = Share() if measure.share else Mean(measure.low, measure.high)
    return kind.estimate(columns, measure.cluster)


def _change(measure: Measure, columns: NDArray, cluster: NDArray | None) -> list[Estimate]:
    return measure.kind_of_change().estimate(columns, cluster)


def _by_group(measure: Measure, changes: NDArray) -> dict[str, list[Estimate]]:
    if measure.group is None or len(measure.groups) < 2:
        return {}
    estimates = {}
    for i, name in enumerate(measure.groups):
        rows = measure.group == i
        cluster = None if measure.cluster is None else measure.cluster[rows]
        estimates[name] = _change(measure, changes[:, rows].T, cluster)
    return estimates
