"""A vector from a finished run: what ``fit`` left in ``checkpoints/EXPERIMENT/RUN``, and what ``test`` reported."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from lightning_steer import checkpoint
from lightning_steer.files import check_no_links, read_bytes
from lightning_steer.methods.base import Steering
from lightning_steer.models.backbone import Backbone
from lightning_steer.vectors import trusted
from lightning_steer.vectors.file import Vector
from lightning_steer.vectors.make import of


def read(folder: Path) -> Vector:
    """The vector of a run's best checkpoint; raises FileNotFoundError or ValueError.

    The model is loaded, and the rows that the method was fitted to are made once more, for their fingerprints.
    """
    check_no_links(folder)
    config = _config(folder / "fit.yaml")
    try:
        asked = config["model"]["init_args"]
        for name, value in (("backbone", asked["backbone"]), ("method", asked["method"]), ("data", config["data"])):
            trusted.check(value, name)
        backbone, method, data = _objects(asked["backbone"], asked["method"], config["data"])
    except (KeyError, TypeError, ValueError, SystemExit) as error:
        raise ValueError(f"{folder / 'fit.yaml'} is not of a run that steers ({str(error)[:200]})") from error
    backbone.load()
    saved, reason = _state(folder / "best.ckpt")
    try:
        maps = {site: _map(method(backbone.width(site)), saved, i) for i, site in enumerate(backbone.sites)}
        strength, low, high, rows, bound = [*saved["choice"].tolist(), math.nan][:5]
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'best.ckpt'} does not fit its fit.yaml ({str(error)[:200]})") from error
    report = _report(config)
    figures, compared = report.get("metrics", {}), report.get("baselines", {}).get("unsteered", {})
    return of(
        backbone,
        maps,
        strength,
        None if math.isnan(low + high) else (low, high),
        int(rows),
        task=getattr(data, "task", ""),
        data=of_rows(data.train_dataloader()),
        effect={name: figures[name] for name in compared if name in figures and not name.startswith("drift")},
        drift={name: estimate for name, estimate in figures.items() if name.startswith("drift")},
        certificate={"reason": reason, "bound": None if math.isnan(bound) else bound} if reason else None,
        warnings=report.get("warnings", []),
    )


def of_rows(batches: Iterable[Any]) -> str:
    """sha256 of the rows in batches of tensors and texts, one batch in memory at a time."""
    found = hashlib.sha256()
    for batch in batches:
        for part in batch:
            if isinstance(part, Tensor):
                part = part.detach().cpu().contiguous()
                found.update(
                    f"{part.dtype} {list(part.shape)} ".encode() + part.flatten().view(torch.uint8).numpy().tobytes()
                )
            else:
                found.update(repr(part).encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent} is no run's folder: it has no fit.yaml; name checkpoints/EXPERIMENT/RUN"
        )
    try:
        found = yaml.safe_load(read_bytes(path).decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no configuration")
    return found


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


def _state(path: Path) -> tuple[dict[str, Tensor], str]:
    """What was learned, and why the strength was chosen."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}: run fit first")
    try:
        saved = checkpoint.load(path)
        return saved["state_dict"], str(saved.get("reason", ""))
    except Exception as error:  # whatever zipfile, the unpickler or torch say of a damaged file
        raise ValueError(f"{path} is not a readable checkpoint ({str(error)[:100]})") from error


def _map(map_: nn.Module, saved: dict[str, Tensor], number: int) -> nn.Module:
    map_.load_state_dict(
        {k.removeprefix(f"maps.{number}."): v for k, v in saved.items() if k.startswith(f"maps.{number}.")}
    )
    return map_.requires_grad_(False).eval()


def _report(config: dict[str, Any]) -> dict[str, Any]:
    """What ``test`` found, if it was run."""
    logger = (config.get("trainer") or {}).get("logger")
    given = logger.get("init_args", {}) if isinstance(logger, dict) else {}
    path = Path(
        str(given.get("save_dir", "logs")), str(given.get("name", "")), str(given.get("version") or ""), "report.json"
    )
    try:
        found = json.loads(read_bytes(path).decode("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
