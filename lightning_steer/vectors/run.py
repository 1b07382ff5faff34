"""Make a vector from a finished run: the files of ``fit`` in ``checkpoints/EXPERIMENT/RUN``, and ``test``'s report."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from torch import Tensor

from lightning_steer.cache import fingerprints
from lightning_steer.cache.files import digest
from lightning_steer.data import readable
from lightning_steer.data.base import SteeringDataModule
from lightning_steer.data.mera.generated_backbone import GeneratedAnswerBackbone
from lightning_steer.errors import UserError
from lightning_steer.files import check_no_links, read_bytes
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.networks.backbone import Backbone
from lightning_steer.runs import provenance, saving
from lightning_steer.runs.row_keys import Limits
from lightning_steer.vectors import trusted
from lightning_steer.vectors.file import SteeringVector
from lightning_steer.vectors.make import of


def read(folder: Path, accept_mismatch: bool = False) -> SteeringVector:
    """Return the vector of a run's best checkpoint; raise FileNotFoundError or ValueError.

    The model is loaded, and the rows that the method was fitted to are built again and compared with those that
    the checkpoint names.
    """
    check_no_links(folder)
    path = folder / "best.ckpt"
    config = _config(folder, saving.record_of(path))
    try:
        arguments = config["model"]["init_args"]
        for name, value in (
            ("backbone", arguments["backbone"]),
            ("method", arguments["method"]),
            ("data", config["data"]),
        ):
            trusted.check(value, name)
        backbone, method, data = _objects(arguments["backbone"], arguments["method"], config["data"])
    except (KeyError, TypeError, ValueError, SystemExit) as error:
        raise UserError(f"{folder / 'fit.yaml'} is not of a run that steers ({str(error)[:200]})") from error
    backbone.load()
    readable.read_all(data, backbone)
    checkpoint = saving.load(path)
    state = checkpoint["state_dict"]
    try:
        maps = {site: _map(method(backbone.width(site)), state, i) for i, site in enumerate(backbone.sites)}
        strength, low, high, rows, bound = [*state["choice"].tolist(), math.nan][:5]
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not fit its fit.yaml ({str(error)[:200]})") from error
    first_map = next(iter(maps.values()))
    network, settings = GeneratedAnswerBackbone.if_asked(backbone, data), provenance.settings_of(first_map)
    current = provenance.of(network, type(first_map).__name__, settings, data, _limits(config.get("trainer") or {}))
    if provenance.KEY in checkpoint or not accept_mismatch:
        fitted = provenance.read(checkpoint.get(provenance.KEY), path)
        mismatches = provenance.compared(path, fitted.differences(current), accept_mismatch)
    else:
        fitted, mismatches = current, [f"{path} does not say what it was fitted to."]
    report = _report(config, fingerprints.of_tensors(state))
    metrics, compared = report.get("metrics", {}), report.get("baselines", {}).get("baseline", {})
    return of(
        backbone,
        maps,
        strength,
        None if math.isnan(low + high) else (low, high),
        int(rows),
        task=fitted.task,
        data=digest(json.dumps(fitted.fitted_rows).encode()),
        selection=digest(json.dumps(fitted.selection_rows).encode()),
        effect={name: metrics[name] for name in compared if name in metrics and not name.startswith("drift")},
        drift={name: estimate for name, estimate in metrics.items() if name.startswith("drift")},
        certificate={"reason": reason, "bound": None if math.isnan(bound) else bound}
        if (reason := str(checkpoint.get("reason", "")))
        else None,
        warnings=[*mismatches, *report.get("warnings", [])],
    )


def _config(folder: Path, saved_config: str | None) -> dict[str, Any]:
    """Return the configuration of the fit: the record in the checkpoint, which ``fit.yaml`` copies."""
    path = folder / "fit.yaml"
    if not path.is_file() and saved_config is None:
        raise FileNotFoundError(f"{folder} is no run's folder: it has no fit.yaml; name checkpoints/EXPERIMENT/RUN")
    try:
        text = read_bytes(path).decode("utf-8") if path.is_file() else str(saved_config)
        config = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no configuration")
    if saved_config is not None and text != saved_config:
        raise UserError(f"{path} is not of the fit that wrote best.ckpt beside it: remove it, or fit again")
    return config


def _limits(trainer: dict[str, Any]) -> Limits:
    """Return how much of the data the fit read; raise ValueError if its trainer's limits are not numbers."""
    names = [f"limit_{part}_batches" for part in ("train", "val")]
    limits = [trainer.get("overfit_batches") or trainer.get(name) for name in names]
    limits = [1.0 if limit is None else limit for limit in limits]
    for name, limit in zip(names, limits, strict=True):
        if type(limit) not in (int, float) or not 0 <= limit < 1 << 40 or (type(limit) is float and limit > 1):
            raise UserError(f"{name} is {limit!r} in fit.yaml: expected a number of batches, or a share of them")
    return Limits(*limits)


def _objects(
    backbone: Any, method: Any, data: Any
) -> tuple[Backbone, Callable[[int], SteeringMethod], SteeringDataModule]:
    """Instantiate backbone, method and data as the command line does, from known classes only."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--backbone", type=Backbone)
    parser.add_argument("--method", type=Callable[[int], SteeringMethod])  # type: ignore[arg-type]
    parser.add_argument("--data", type=SteeringDataModule)
    objects = parser.instantiate_classes(parser.parse_object({"backbone": backbone, "method": method, "data": data}))
    return objects["backbone"], objects["method"], objects["data"]


def _map(method: SteeringMethod, state: dict[str, Tensor], number: int) -> SteeringMethod:
    prefix = f"maps.{number}."
    map_state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return saving.restore(method, map_state, "best.ckpt")


def _report(config: dict[str, Any], result: str) -> dict[str, Any]:
    """Return the report that ``test`` wrote for this result; empty if there is none."""
    logger = (config.get("trainer") or {}).get("logger")
    inits = logger.get("init_args", {}) if isinstance(logger, dict) else {}
    path = Path(
        str(inits.get("save_dir", "logs")), str(inits.get("name", "")), str(inits.get("version") or ""), "report.json"
    )
    try:
        report = json.loads(read_bytes(path).decode("utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) and report.get("result") == result else {}
