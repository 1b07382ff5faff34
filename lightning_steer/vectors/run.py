"""A vector from a finished run: what ``fit`` left in ``checkpoints/EXPERIMENT/RUN``, and what ``test`` reported."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor

from lightning_steer.cache import fingerprints
from lightning_steer.cache.files import digest
from lightning_steer.data import readable
from lightning_steer.data.mera.generated_backbone import InOwnWords
from lightning_steer.files import check_no_links, read_bytes
from lightning_steer.methods.base import Steering
from lightning_steer.networks.backbone import Backbone
from lightning_steer.runs import provenance, saving
from lightning_steer.runs.row_keys import Limits
from lightning_steer.vectors import trusted
from lightning_steer.vectors.file import SteeringVector
from lightning_steer.vectors.make import of


def read(folder: Path, accept_mismatch: bool = False) -> SteeringVector:
    """The vector of a run's best checkpoint; raises FileNotFoundError or ValueError.

    The model is loaded, and the rows that the method was fitted to are made once more, to be compared with those that
    the checkpoint names.
    """
    check_no_links(folder)
    path = folder / "best.ckpt"
    config = _config(folder, saving.record_of(path))
    try:
        asked = config["model"]["init_args"]
        for name, value in (("backbone", asked["backbone"]), ("method", asked["method"]), ("data", config["data"])):
            trusted.check(value, name)
        backbone, method, data = _objects(asked["backbone"], asked["method"], config["data"])
    except (KeyError, TypeError, ValueError, SystemExit) as error:
        raise ValueError(f"{folder / 'fit.yaml'} is not of a run that steers ({str(error)[:200]})") from error
    backbone.load()
    readable.read_all(data, backbone)
    saved = saving.load(path)
    state = saved["state_dict"]
    try:
        maps = {site: _map(method(backbone.width(site)), state, i) for i, site in enumerate(backbone.sites)}
        strength, low, high, rows, bound = [*state["choice"].tolist(), math.nan][:5]
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not fit its fit.yaml ({str(error)[:200]})") from error
    one = next(iter(maps.values()))
    network, settings = InOwnWords.if_asked(backbone, data), provenance.settings_of(one)
    now = provenance.of(network, type(one).__name__, settings, data, _limits(config.get("trainer") or {}))
    if provenance.KEY in saved or not accept_mismatch:
        then = provenance.read(saved.get(provenance.KEY), path)
        mismatches = provenance.compared(path, then.differences(now), accept_mismatch)
    else:
        then, mismatches = now, [f"{path} does not say what it was fitted to."]
    report = _report(config, fingerprints.of_tensors(state))
    figures, compared = report.get("metrics", {}), report.get("baselines", {}).get("unsteered", {})
    return of(
        backbone,
        maps,
        strength,
        None if math.isnan(low + high) else (low, high),
        int(rows),
        task=then.task,
        data=digest(json.dumps(then.fitted_rows).encode()),
        selection=digest(json.dumps(then.selection_rows).encode()),
        effect={name: figures[name] for name in compared if name in figures and not name.startswith("drift")},
        drift={name: estimate for name, estimate in figures.items() if name.startswith("drift")},
        certificate={"reason": reason, "bound": None if math.isnan(bound) else bound}
        if (reason := str(saved.get("reason", "")))
        else None,
        warnings=[*mismatches, *report.get("warnings", [])],
    )


def _config(folder: Path, record: str | None) -> dict[str, Any]:
    """The configuration of the fit: the record in the checkpoint, which ``fit.yaml`` copies."""
    path = folder / "fit.yaml"
    if not path.is_file() and record is None:
        raise FileNotFoundError(f"{folder} is no run's folder: it has no fit.yaml; name checkpoints/EXPERIMENT/RUN")
    try:
        text = read_bytes(path).decode("utf-8") if path.is_file() else str(record)
        found = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no configuration")
    if record is not None and text != record:
        raise ValueError(f"{path} is not of the fit that wrote best.ckpt beside it: remove it, or fit again")
    return found


def _limits(trainer: dict[str, Any]) -> Limits:
    """How much of the data the fit read; raises ValueError if its trainer says something else than numbers."""
    names = [f"limit_{part}_batches" for part in ("train", "val")]
    limits = [trainer.get("overfit_batches") or trainer.get(name) for name in names]
    limits = [1.0 if limit is None else limit for limit in limits]
    for name, limit in zip(names, limits, strict=True):
        if type(limit) not in (int, float) or not 0 <= limit < 1 << 40 or (type(limit) is float and limit > 1):
            raise ValueError(f"{name} is {limit!r} in fit.yaml: expected a number of batches, or a share of them")
    return Limits(*limits)


def _objects(
    backbone: Any, method: Any, data: Any
) -> tuple[Backbone, Callable[[int], Steering], L.LightningDataModule]:
    """What the run was made of, as the command line makes it: only known kinds of classes."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--backbone", type=Backbone)
    parser.add_argument("--method", type=Callable[[int], Steering])  # type: ignore[arg-type]
    parser.add_argument("--data", type=L.LightningDataModule)
    made = parser.instantiate_classes(parser.parse_object({"backbone": backbone, "method": method, "data": data}))
    return made["backbone"], made["method"], made["data"]


def _map(map_: Steering, saved: dict[str, Tensor], number: int) -> Steering:
    prefix = f"maps.{number}."
    own = {key.removeprefix(prefix): value for key, value in saved.items() if key.startswith(prefix)}
    return saving.restore(map_, own, "best.ckpt")


def _report(config: dict[str, Any], result: str) -> dict[str, Any]:
    """What ``test`` found of this very result, if it was run; a report of another, which may lie there, is none."""
    logger = (config.get("trainer") or {}).get("logger")
    given = logger.get("init_args", {}) if isinstance(logger, dict) else {}
    path = Path(
        str(given.get("save_dir", "logs")), str(given.get("name", "")), str(given.get("version") or ""), "report.json"
    )
    try:
        found = json.loads(read_bytes(path).decode("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("result") == result else {}
