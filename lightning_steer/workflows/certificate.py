"""A certificate for the setting of a search, from the held-out pairs, which played no part in the choice."""

import math

from lightning_steer.modules.figures import certified_bound
from lightning_steer.modules.steering import SteeringAdaptor
from lightning_steer.selection.rule import Certified


def certify(module: SteeringAdaptor) -> float:
    """Add a certificate to the report of a tested module, and return the certified improvement; 0 if there is none.

    One setting is judged, so nothing is corrected for a choice.

    Args:
        module: steered at one strength, and tested.

    Raises:
        ValueError: the evaluation does not declare by how much steering can change a row's success.
    """
    tested = {name: column.cpu() for name, column in module.tested.compute().items()}
    base, steered = (tested[f"{group}/{module.evaluation.success}"] for group in ("baseline", "steered"))
    cluster = tested["cluster"].reshape(-1)
    rule = Certified()
    choice = rule.choose([module.strength], base[:, 0], steered, steered, module.evaluation.change, cluster)
    module.report["metrics"]["certified_bound"] = certified_bound(choice.bound, len(base), choice.clusters)
    bound = 0.0 if math.isnan(choice.bound) else choice.bound
    risk = f"at a risk of {rule.delta:g}"
    module.report["choice"] += (
        f"; certified on {len(base)} held-out pairs {risk}: {module.evaluation.success} improves by more than "
        f"{bound:.3f}"
        if choice.index is not None
        else f"; no improvement of {module.evaluation.success} is certified on {len(base)} held-out pairs {risk}"
    )
    return bound
