"""Load fitted methods from checkpoints of a steering run, or plain vectors; tensors only, never code."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_steer import checkpoint
from lightning_steer.errors import UserError, brief
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.methods.mean_difference import MeanDifference
from lightning_steer.runs import saving


def load(
    path: str | Path, method: Callable[[int], SteeringMethod] | None, widths: Mapping[str, int]
) -> dict[str, SteeringMethod]:
    """Return a fitted method for every site.

    Args:
        path: ``best.ckpt`` of a steering run, or a vector file, ``.safetensors``; or, in ``.safetensors`` or ``.pt``,
            one plain vector, or plain vectors by site or layer.
        method: the method of the checkpoint or vector file; None for plain vectors, which are added.
        widths: the width of each site.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no fitted map at {path}: run fit first, or name another file")
    content = _tensors(path)
    if method is None:
        return {site: _adding(vector, path, site, widths[site]) for site, vector in _vectors(content, widths, path)}
    state = _of_vector_file(content) if path.suffix == ".safetensors" else content.get("state_dict", {})
    methods: dict[str, SteeringMethod] = {}
    for number, (site, width) in enumerate(widths.items()):
        prefix = f"maps.{number}."
        site_state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if not site_state:
            raise UserError(f"{path} holds no map number {number + 1}, for {site}: it was fitted at other sites")
        methods[site] = site_method = method(width)
        if path.suffix == ".safetensors":  # methods in files are fitted, and so are those inside them
            flags = (key for key in site_method.state_dict() if key.endswith("_extra_state"))
            site_state |= dict.fromkeys(flags, torch.tensor(True))
        saving.restore(site_method, site_state, f"{path} does not fit {type(site_method).__name__} at {site}")
        for key, value in site_state.items():
            _checked(value, path, f"{site}, {key}")
    return methods


def _of_vector_file(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a vector file by their names in a checkpoint; methods in files are fitted."""
    numbers = {name.partition(".")[0] for name in tensors}
    flags = {f"maps.{number}._extra_state": torch.tensor(True) for number in numbers}
    return {**{f"maps.{name}": value for name, value in tensors.items()}, **flags}


def _tensors(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return checkpoint.load(path)
    except Exception as error:  # torch, zipfile, safetensors and the unpickler raise various types for a foreign file
        raise UserError(f"{path} cannot be read as tensors: {brief(error)}") from None


def _vectors(content: Any, widths: Mapping[str, int], path: Path) -> list[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        content = dict.fromkeys(widths, content) if len(widths) == 1 else {}
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"{path} is neither a vector nor vectors by site: if it is a checkpoint, say of which method")
    by_name = {str(key): value for key, value in content.items()}
    vectors = []
    for site in widths:  # model.layers.2, or only the layer's number
        name = site if site in by_name else site.rpartition(".")[2]
        if name not in by_name:
            raise UserError(f"{path} has no vector for {site}; it has {', '.join(by_name) or 'none of one site'}")
        vectors.append((site, by_name[name]))
    return vectors


def _adding(vector: Tensor, path: Path, site: str, width: int) -> SteeringMethod:
    if not vector.is_floating_point():
        raise UserError(f"the vector for {site} in {path} holds {vector.dtype}: save it as float32")
    vector = vector.detach().float().squeeze()
    if vector.shape != (width,):
        raise UserError(f"the vector for {site} in {path} has shape {list(vector.shape)}, but {site} is {width} wide")
    site_method = MeanDifference(width)
    site_method.vector = _checked(vector, path, site)
    if not vector.any():
        raise UserError(f"the vector for {site} in {path} is all zeros: it would steer nothing")
    site_method.fitted = True
    return site_method


def _checked(tensor: Tensor, path: Path, name: str) -> Tensor:
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise UserError(f"{path} holds NaN or infinite values for {name}: nothing can be steered with them")
    return tensor
