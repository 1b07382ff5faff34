"""Check that a model is the one that a vector was fitted on, by content: configuration, weights, tokenizer."""

import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from lightning_steer.cache import fingerprints
from lightning_steer.errors import UserError
from lightning_steer.lm.language_model import LLM
from lightning_steer.networks.backbone import Backbone
from lightning_steer.vectors.card import Model


def of(
    model: nn.Module, tokenizer: Any = None, name: str | None = None, revision: str | None = None, files: bool = True
) -> Model:
    """Return the identity of a model in memory, with any weights on any device.

    Reads all weights once; the next call for the same model returns at once if no weight was changed since (changes
    through ``.data`` cannot be seen).

    Args:
        model: a Hugging Face model, or any other network.
        tokenizer: None if it is unknown; then it is not compared.
        name: hub name or folder that it was read from; None for the model's own record.
        revision: branch, tag or commit on the hub.
        files: whether to read its files too; they count if they equal the weights in memory.
    """
    config = getattr(model, "config", None)
    model_name = name or str(getattr(config, "_name_or_path", "") or type(model).__name__)
    state = tuple(
        (t.data_ptr(), 0 if t.is_inference() else t._version) for t in model.state_dict(keep_vars=True).values()
    )
    cached = _KNOWN.get(model)
    if cached is None or cached[0] != state:
        cached = _KNOWN[model] = (state, fingerprints.of_memory(model))
    return Model(
        name=model_name,
        family=getattr(config, "model_type", type(model).__name__),
        configuration=None if config is None else fingerprints.of_configuration(config),
        weights=fingerprints.of_files(model_name, revision, model) if files and config is not None else None,
        memory=cached[1],
        precision=_precision(model),
        tokenizer=None if tokenizer is None else fingerprints.of_tokenizer(tokenizer),
    )


def of_backbone(backbone: Backbone, files: bool = True) -> Model:
    """Return the identity of a loaded backbone: a language model with its tokenizer, or the toy network."""
    if isinstance(backbone, LLM):
        return of(backbone.model, backbone.tokenizer, backbone.llm, backbone.loading[1], files)
    return of(backbone.get_submodule("network"), name=getattr(backbone, "checkpoint", backbone.name))


def difference(fitted: Model, current: Model) -> str | None:
    """Return the reason why a vector fitted on one model does not fit the other; None if it does.

    Weights agree if they are equal in memory, or were read from the same files in another precision.
    """
    for field in ("configuration", "tokenizer"):
        fitted_value, given_value = getattr(fitted, field), getattr(current, field)
        if fitted_value is not None and given_value is not None and fitted_value != given_value:
            return f"its {field} is another"
    if None in (fitted.memory, current.memory) or fitted.precision != current.precision:
        is_same = fitted.weights == current.weights and current.weights is not None
    else:
        is_same = fitted.memory == current.memory
    other_precision = fitted.precision != current.precision
    return (
        None
        if is_same
        else f"its weights are others{', or cannot be compared in another precision' if other_precision else ''}"
    )


def refuse(fitted: Model | None, identify: Callable[[bool], Model]) -> None:
    """Raise ValueError, naming both models and what to do, if the vector belongs to another model.

    ``identify(files)`` returns the identity of the current model; files are read only if memory does not decide.
    Warns about what could not be compared.
    """
    if fitted is None:
        _warn("the vector's card names no model: it was not compared; put one there with `export ... --llm NAME`")
        return
    model = identify(False)
    unknown = [key for key in ("configuration", "tokenizer") if None in (getattr(fitted, key), getattr(model, key))]
    if fitted.configuration is None and model.configuration is None:
        unknown = []  # not a language model
    if unknown:
        _warn(f"the {' and the '.join(unknown)} of {fitted.name} and {model.name} were not compared: one is not known")
    if difference(fitted, model) is None:
        return
    model = identify(True)
    reason = difference(fitted, model)
    if reason is not None:
        raise UserError(
            f"this vector was fitted on {fitted.name}, and {model.name} is another model ({reason}): load the model "
            "that it was fitted on, or say other_model=True to steer another one on purpose"
        )


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=5)


_KNOWN: "WeakKeyDictionary[nn.Module, tuple[Any, str | None]]" = WeakKeyDictionary()
"""Fingerprints of the weights of known models, and the state of the weights at that time."""


def _precision(model: nn.Module) -> str | None:
    tensor = next((p for p in model.parameters() if p.dtype.is_floating_point), None)
    quantised = getattr(getattr(model, "config", None), "quantization_config", None)
    kind = None if tensor is None else str(tensor.dtype).removeprefix("torch.")
    return kind if quantised is None or kind is None else f"{kind}, quantised"
