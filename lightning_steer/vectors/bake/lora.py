"""A change of weights as a LoRA adapter in peft's form: ``W x + B (A x) + c`` instead of new weights W.

``adapter_config.json`` and ``adapter_model.safetensors`` as peft writes them (checked with peft 0.21.2); the bias c is
peft's ``lora_bias``, which also serves layers without a bias of their own. Source: Hu et al. 2022, arXiv 2106.09685.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from safetensors.torch import save as as_bytes
from torch import Tensor, nn

from lightning_steer.errors import UserError
from lightning_steer.files import write
from lightning_steer.vectors.bake import weights
from lightning_steer.vectors.bake.affine import Affine
from lightning_steer.vectors.bake.writers import Weight

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
SMALL = 1e-6
"""Singular values below this share of the largest one are rounding."""


class Adapter(NamedTuple):
    """The content of an adapter's two files."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]


@torch.no_grad()
def made(model: Any, changes: Mapping[Weight, Affine], base: str) -> Adapter:
    """Return the adapter that does what the changes do.

    Args:
        model: the unchanged model.
        changes: from a :class:`~lightning_steer.vectors.bake.plan.BakePlan`.
        base: hub name or folder of the model.

    Raises:
        ValueError: the adapter would be larger than the weights, or peft has no such adapter.
    """
    factors = {weight: _factors(model, weight, form) for weight, form in changes.items()}
    offsets = {weight: _offset(model, weight, form) for weight, form in changes.items()}
    has_bias = any(bool(value.any()) for value in offsets.values() if value is not None)
    if has_bias and any(isinstance(model.get_submodule(weight.module), nn.Embedding) for weight in changes):
        raise UserError(
            "the layers of this model have biases that change too, and peft gives an adapter of embeddings no bias: "
            "bake a model instead"
        )
    rank = max((len(a) for a, _ in factors.values()), default=1) or 1
    tensors: dict[str, Tensor] = {}
    for weight, (a, b) in factors.items():
        a = nn.functional.pad(a, (0, 0, 0, rank - len(a)))
        b = nn.functional.pad(b, (0, rank - b.shape[1]))
        name = f"base_model.model.{weight.module}"
        if isinstance(model.get_submodule(weight.module), nn.Embedding):
            tensors |= {f"{name}.lora_embedding_A": a, f"{name}.lora_embedding_B": b}
            continue
        tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        if has_bias:
            tensors[f"{name}.lora_B.bias"] = offsets[weight]  # type: ignore[assignment]
    kinds = {type(model.get_submodule(weight.module)).__name__ for weight in changes}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "lora_bias": has_bias,
        "bias": "none",
        "fan_in_fan_out": "Conv1D" in kinds,
        "target_modules": [weight.module for weight in changes],
        "inference_mode": True,
    }
    plain = {name: value.float().cpu().contiguous() for name, value in tensors.items()}
    return Adapter(config, plain)


def save(folder: Path, adapter: Adapter) -> None:
    """Write the two files."""
    write(folder / TENSORS, as_bytes(adapter.tensors, {"format": "pt"}))
    write(folder / CONFIG, (json.dumps(adapter.config, indent=2, sort_keys=True) + "\n").encode())


@contextmanager
def applied(model: Any, folder: Path) -> Iterator[None]:
    """Run the model with a folder's adapter, as peft does, while the ``with`` block runs."""
    tensors = load_file(folder / TENSORS)
    config = json.loads((folder / CONFIG).read_text())
    scale = config["lora_alpha"] / config["r"]
    with ExitStack() as stack:
        for name in config["target_modules"]:
            key, module = f"base_model.model.{name}", model.get_submodule(name)
            if isinstance(module, nn.Embedding):
                table = (tensors[f"{key}.lora_embedding_B"] @ tensors[f"{key}.lora_embedding_A"]).T
                adds = _embedded(scale * table)
            else:
                a, b, c = (tensors.get(f"{key}.lora_{part}") for part in ("A.weight", "B.weight", "B.bias"))
                adds = _multiplied(a, b, c, scale)  # type: ignore[arg-type]
            stack.callback(module.register_forward_hook(adds).remove)
        yield


def _embedded(table: Tensor) -> Any:
    def hook(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        factor = getattr(module, "embed_scale", 1.0)  # Gemma scales what it looks up, and peft what it adds
        return output + factor * nn.functional.embedding(inputs[0], table.to(output))

    return hook


def _multiplied(a: Tensor, b: Tensor, c: Tensor | None, scale: float) -> Any:
    def hook(_module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        added = inputs[0] @ a.to(output).T @ b.to(output).T
        return output + scale * (added if c is None else added + c.to(output))

    return hook


def _factors(model: Any, weight: Weight, form: Affine) -> tuple[Tensor, Tensor]:
    """Return ``A [r, in]`` and ``B [out, r]`` of a weight's change; r is 0 for a constant vector."""
    module: Any = model.get_submodule(weight.module)
    tensor = getattr(module, weight.name)
    if tensor.dim() != 2:
        raise UserError(f"{weight.module} holds the experts' weights as one tensor, which no adapter changes: bake")
    rows = tensor.double().movedim(weight.axis, 0)  # [out, in], also where the layer keeps it transposed
    if form.matrix is None:
        return rows.new_zeros(0, rows.shape[1]), rows.new_zeros(len(rows), 0)
    left, size, right = torch.linalg.svd(form.matrix.to(rows.device))
    rank = int((size > SMALL * size[0]).sum())
    if rank * sum(rows.shape) >= rows.numel():
        raise UserError(
            f"the change of {weight.module} has rank {rank}, so that an adapter would be as large as the weights "
            f"{list(tensor.shape)}: bake a model instead"
        )
    return right[:rank] @ rows, left[:, :rank] * size[:rank]


def _offset(model: Any, weight: Weight, form: Affine) -> Tensor | None:
    """Return what is added to a layer's output besides the product; None for an embedding."""
    if weight.bias is None:
        return None
    bias = getattr(model.get_submodule(weight.module), weight.bias, None)
    bias = torch.zeros_like(form.offset) if bias is None else bias.double().to(form.offset.device)
    return weights.offset(form, bias) - bias
