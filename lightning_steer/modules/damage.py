"""Effects of steering on unrelated texts: at the chosen strength, at all others, and in random directions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_steer.lm.language_model import LLM
from lightning_steer.metrics.drift import drift_estimates
from lightning_steer.modules import interventions
from lightning_steer.modules.figures import as_estimates, by_strength, random_range
from lightning_steer.modules.interventions import Interventions
from lightning_steer.statistics.estimate import BY_DEFINITION, Estimate

Columns = dict[str, list[Estimate]]
"""``{measure: [C estimates]}`` of C interventions."""


def add_to(
    report: dict[str, Any],
    llm: LLM,
    texts: Sequence[str],
    groups: Sequence[Interventions],
    strengths: Sequence[float],
    identity_strength: float,
) -> None:
    """Add the drift of reference texts to a report's figures, baselines and curves.

    Args:
        report: the report of a test, otherwise complete.
        llm: the model.
        texts: texts that steering should leave alone.
        groups: all interventions of the test; ``steered``, ``random_control`` and ``strength`` are used.
        strengths: the strengths of the group ``strength``.
        identity_strength: the strength at which nothing is changed.
    """
    used = [group for group in groups if group.name in ("steered", "random_control", "strength")]
    edits, copies = interventions.together(used, llm.sites)
    by_group = split(drift_estimates(llm.drift(texts, edits, copies)), used)
    drift = {name: column[0]._asdict() for name, column in by_group["steered"].items()}
    report["metrics"] |= drift
    report["baselines"]["random_control"] |= {
        name: random_range([estimate.value for estimate in column], drift[name]["value"], False, report["searched"])
        for name, column in by_group["random_control"].items()
    }
    report["baselines"]["baseline"] |= undisturbed(drift)
    start = as_estimates(undisturbed(drift))
    report["curves"]["damage"] = by_strength(strengths, by_group["strength"], identity_strength, start)


def split(estimates: Columns, groups: Sequence[Interventions]) -> dict[str, Columns]:
    """Split the estimates of all copies, ``{measure: [all copies]}``, by the name of their group."""
    by_group: dict[str, Columns] = {}
    start = 0
    for group in groups:
        copies = slice(start, start + group.copies)
        by_group[group.name] = {name: column[copies] for name, column in estimates.items()}
        start += group.copies
    return by_group


def undisturbed(drift: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the drift of the unsteered network from itself, which is known by definition, in the form of ``drift``."""
    by_definition = {"value": 0.0, "low": math.nan, "high": math.nan, "how": BY_DEFINITION}
    return {
        name: {**estimate, **by_definition, "value": float(name == "perplexity_ratio")}
        for name, estimate in drift.items()
    }
