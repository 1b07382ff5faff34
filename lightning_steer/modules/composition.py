"""What a report says of a composed method: whether the effects of its parts add up."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_steer.metrics.columns import as_clusters, as_numbers
from lightning_steer.metrics.evaluation import Evaluation
from lightning_steer.statistics.interactions import interaction
from lightning_steer.statistics.kinds import Mean, Share


def interactions(tested: Mapping[str, Tensor], evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Return ``{measure_interaction: estimate}``: the effect of all parts less the sum of theirs, paired by row.

    Args:
        tested: columns ``group/measure [n, 1]`` of ``baseline``, ``steered`` and ``part_1`` and so on; without parts
            there is no interaction.
        evaluation: declares the measures, of which shares and means are compared.
    """
    count = sum(name.startswith("part_") and name.endswith(f"/{evaluation.success}") for name in tested)
    if count < 2:
        return {}
    figures: dict[str, dict[str, Any]] = {}
    for measure in dict.fromkeys((evaluation.success, *evaluation.headline)):
        kind, name = evaluation.kinds.get(measure), f"baseline/{measure}"
        compares = measure in evaluation.by_definition or measure.endswith("_change")  # with the baseline already
        if name not in tested or compares or not isinstance(kind, (Share, Mean)):
            continue
        low, high = (0.0, 1.0) if isinstance(kind, Share) else (kind.low, kind.high)
        singles = [as_numbers(tested[f"part_{number + 1}/{measure}"]) for number in range(count)]
        plain, together = as_numbers(tested[name]), as_numbers(tested[f"steered/{measure}"])
        (estimate,) = interaction(plain, singles, together, low, high, as_clusters(tested["cluster"]))
        figures[f"{measure}_interaction"] = estimate._asdict()
    return figures
