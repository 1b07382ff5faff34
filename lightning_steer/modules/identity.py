"""What a report is about: the experiment, its parts, and the versions that made it."""

import inspect
import os
from typing import Any

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.runs.provenance import settings_of
from lightning_steer.versions import versions


def identify(experiment: str, task: str, backbone: str, method: SteeringMethod) -> dict[str, Any]:
    """Return what a report is about, and the versions that made it."""
    settings = list(inspect.signature(type(method)).parameters.values())[1:]
    values = settings_of(method)
    changed = [f"{p.name}={_short(values[p.name])}" for p in settings if values[p.name] != p.default]
    return {
        "experiment": experiment,
        "task": task,
        "backbone": backbone,
        "method": f"{type(method).__name__}({', '.join(changed)})" if changed else type(method).__name__,
        "seed": int(os.environ.get("PL_GLOBAL_SEED", "0")),
        "versions": versions(),
    }


def _short(value: Any) -> str:
    """Return an argument as text; of a method inside another one its name alone."""
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return value["name"] if isinstance(value, dict) else repr(value)
