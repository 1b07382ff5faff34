"""Change a model's weights as a plan says: a factor from the left, a bias, and a head of its own where it was tied."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_steer.errors import UserError
from lightning_steer.vectors.bake.affine import Affine
from lightning_steer.vectors.bake.writers import Weight


@torch.no_grad()
def change(model: Any, changes: Mapping[Weight, Affine]) -> list[str]:
    """Change the weights in place; return sentences on what else the configuration needed.

    Args:
        model: a causal language model in float32.
        changes: from a :class:`~lightning_steer.vectors.bake.plan.BakePlan`.

    Raises:
        ValueError: a layer needs a bias that the model's configuration cannot give it.
    """
    notes = add_biases(model, [weight for weight, form in changes.items() if needs_bias(model, weight, form)])
    if any(isinstance(model.get_submodule(weight.module), nn.Embedding) for weight in changes):
        notes += untie(model)
    for weight, form in changes.items():
        module: Any = model.get_submodule(weight.module)
        tensor = getattr(module, weight.name)
        bias = None if weight.bias is None else getattr(module, weight.bias, None)
        if form.matrix is not None:
            tensor.data = times(form.matrix, tensor.data, weight.axis)
        if bias is not None:
            bias.data = offset(form, bias.data).to(bias.dtype)
    return notes


def times(matrix: Tensor, tensor: Tensor, axis: int) -> Tensor:
    """Return ``(1 + matrix)`` times a tensor along one of its axes, computed in float64."""
    columns = tensor.double().movedim(axis, -1)
    return (columns + columns @ matrix.to(tensor.device).mT).movedim(-1, axis).to(tensor.dtype).contiguous()


def offset(form: Affine, bias: Tensor) -> Tensor:
    """Return the bias ``[*, d]`` behind an affine form, in float64."""
    wide = bias.double()
    moved = wide if form.matrix is None else wide + wide @ form.matrix.to(bias.device).mT
    return moved + form.offset.to(bias.device)


def needs_bias(model: nn.Module, weight: Weight, form: Affine) -> bool:
    """Return whether a form needs a bias that the layer lacks."""
    has = weight.bias is not None and getattr(model.get_submodule(weight.module), weight.bias, None) is not None
    return not has and bool(form.offset.any())


def add_biases(model: Any, weights: Iterable[Weight]) -> list[str]:
    """Give layers a bias by an entry of the model's own configuration, all zeros; raise ValueError if none does."""
    needed = {f"{weight.module}.{weight.bias}" for weight in weights}
    notes = []
    while needed:
        name = min(needed)
        option = _entry_for(model, name)
        if option is None:
            tried = ", ".join(_bias_entries(model))
            raise UserError(
                f"{name} does not exist, and the configuration of {model.config.model_type} cannot give that layer a "
                f"bias ({f'tried {tried}' if tried else 'it has no such entry'}): use another site, or "
                "--format lora, whose adapters bring their own bias"
            )
        entry, config, added = option
        for key in added:
            layer, _, bias = key.rpartition(".")
            module: Any = model.get_submodule(layer)
            axis = 1 if type(module).__name__ == "Conv1D" else 0
            setattr(module, bias, nn.Parameter(module.weight.new_zeros(module.weight.shape[axis]), requires_grad=False))
        model.config = config
        needed -= added
        notes.append(f"The configuration's {entry} is now true: {len(added)} biases, zero but for what was written.")
    return notes


def can_have_bias(model: Any, weight: Weight) -> bool:
    """Return whether a layer has a bias, or an entry of the configuration gives it one."""
    if getattr(model.get_submodule(weight.module), str(weight.bias), None) is not None:
        return True
    return _entry_for(model, f"{weight.module}.{weight.bias}") is not None


def _bias_entries(model: Any) -> list[str]:
    return [key for key, value in vars(model.config.get_text_config()).items() if "bias" in key and value is False]


def _entry_for(model: Any, name: str) -> tuple[str, Any, set[str]] | None:
    """Return the entry of the configuration that gives a layer its bias, the new configuration, and all new biases."""
    before, options = set(model.state_dict()), []
    for key in _bias_entries(model):
        config = copy.deepcopy(model.config)
        setattr(config.get_text_config(), key, True)
        with torch.device("meta"):
            added = set(type(model)(config).state_dict()) - before
        if name in added and all(new.endswith(".bias") for new in added):
            options.append((len(added), key, config, added))
    return min(options, key=lambda option: option[:2])[1:] if options else None


def untie(model: Any) -> list[str]:
    """Give the vocabulary head weights of its own if it shares the embeddings'."""
    head = model.get_output_embeddings()
    if head is None or head.weight is not model.get_input_embeddings().weight:
        return []
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    return ["The embeddings were tied to the vocabulary head; the head now has its old weights for itself."]
