"""What a report says of gates: the share of rows that they steer, and the bound on those that they should not."""

from collections.abc import Mapping
from typing import Any

from lightning_steer.data.base import SteeringBatch
from lightning_steer.errors import UserError
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import LastPromptToken
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.methods.gated import Gated
from lightning_steer.networks.backbone import Backbone
from lightning_steer.probes import LARGEST
from lightning_steer.statistics.gates import KeptGate


def check(methods: Mapping[str, SteeringMethod], backbone: Backbone, batch: SteeringBatch) -> None:
    """Raise ValueError if rows are read elsewhere than where a gate decides: at the last token of their prompt."""
    if not isinstance(backbone, LLM) or not any(method.whole_rows for method in methods.values()):
        return
    if batch.pair is not None:
        raise UserError(
            "a gate decides at the last token of a prompt, and these pairs of texts differ after it: fit the method "
            "alone, then gate its vector (lightning_steer.workflows.gate)"
        )
    if not isinstance(backbone.read_positions, LastPromptToken):
        rule = type(backbone.read_positions).__name__
        raise UserError(
            f"a gate decides at the last token of a prompt, and rows are read at {rule}: set read_positions to "
            "LastPromptToken"
        )


def figures(methods: Mapping[str, SteeringMethod]) -> dict[str, dict[str, Any]]:
    """Return ``gate_power`` and ``gate_bound`` of the gates among the methods, numbered if there are several."""
    gated = {site: method for site, method in methods.items() if isinstance(method, Gated)}
    metrics: dict[str, dict[str, Any]] = {}
    for number, method in enumerate(gated.values(), 1):
        power, bound = KeptGate(*method.condition.calibration.tolist()).estimates(method.delta)
        end = "" if len(gated) == 1 else f"_{number}"
        metrics |= {f"gate_power{end}": power._asdict(), f"gate_bound{end}": bound._asdict()}
    return metrics


def warnings(methods: Mapping[str, SteeringMethod]) -> list[str]:
    """Return a sentence for each gate that steers no row, as too few were given to promise anything."""
    return [
        f"The gate at {site} steers no row: {int(method.condition.calibration[0])} calibration rows that should be "
        f"left alone are too few for wrong gates of at most {method.eta:g} at confidence {1 - method.delta:g}."
        for site, method in methods.items()
        if isinstance(method, Gated) and float(method.condition.threshold) >= LARGEST
    ]
