"""Attention windows and chunks of a decoder's layers, in positions of a text instead of slots of a row.

A prepared 4-D mask replaces the model's own mask, and with it the windows and chunks. So rows with options
side by side need a mask for each kind of layer, with the configured window in it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

LONGEST_WINDOW = 256
"""Windows up to this size are tested on the model itself, longer ones on a small copy of its configuration."""
SMALL_WINDOW = 16
SIZES = ("sliding_window", "attention_chunk_size", "window_size", "floor_scale")
"""Configuration entries of the number of tokens at which attention changes; the last is Llama 4's temperature."""
KINDS = ("full_attention", "sliding_attention", "chunked_attention")
"""Layers whose mask can be prepared; a linear or convolutional layer reads its neighbours in the row."""


def windows(config: Any) -> dict[str, int]:
    """Return the sizes of windows and chunks in use, by their name in the text configuration."""
    kinds = getattr(config, "layer_types", None)
    in_use = {
        "sliding_window": kinds is None or any("sliding" in kind for kind in kinds),
        "attention_chunk_size": kinds is None or "chunked_attention" in kinds,
        "floor_scale": bool(getattr(config, "attn_temperature_tuning", False)),
    }
    sizes = {name: getattr(config, name, None) for name in SIZES if in_use.get(name, True)}
    return {name: int(size) for name, size in sizes.items() if isinstance(size, int | float) and size > 0}


def mask_forms(config: Any) -> list[tuple[str, ...]]:
    """Return the mask forms that a family may accept, likeliest first: layer kinds, or one kind in a single mask.

    A tuple of several kinds, or of one that starts with a star, is a dictionary. Empty if options cannot be packed.
    """
    kinds = tuple(sorted(set(getattr(config, "layer_types", None) or ())))
    if any(kind not in KINDS for kind in kinds):
        return []
    single = [("full_attention",)]
    if getattr(config, "sliding_window", None):
        single.insert(0, ("sliding_attention",))
    if len(kinds) > 1:
        return [kinds]
    return [("*" + kinds[0],), *single] if kinds else single


def masks(config: Any, form: Sequence[str], mask: Tensor, position: Tensor) -> Tensor | dict[str, Tensor]:
    """Return the masks that replace the model's own.

    Args:
        config: the text configuration.
        form: one of :func:`mask_forms`.
        mask: ``[R, 1, T, T]`` additive: the mask without windows.
        position: ``[R, T]`` position of each token in its own text.
    """
    by_kind = {kind.strip("*"): _within(config, kind.strip("*"), mask, position) for kind in form}
    return by_kind if len(form) > 1 or form[0].startswith("*") else by_kind[form[0]]


def _within(config: Any, kind: str, mask: Tensor, position: Tensor) -> Tensor:
    from transformers import masking_utils

    if kind == "full_attention":
        return mask
    if kind == "sliding_attention":
        rule = masking_utils.sliding_window_overlay(config.sliding_window)
    else:
        rule = masking_utils.chunked_overlay(config.attention_chunk_size, position.new_zeros(1))
    visible = rule(0, 0, position[:, None, :, None], position[:, None, None, :])
    return mask.masked_fill(~visible, torch.finfo(mask.dtype).min)  # type: ignore[operator]


def every_expert(config: Any) -> dict[str, int]:
    """Return settings that send every token to all experts of a mixture; empty for other models."""
    setting = next(
        (name for name in ("num_experts_per_tok", "num_experts_per_token") if getattr(config, name, None)), ""
    )
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    count = max((getattr(config, name, None) or 0 for name in names), default=0)
    if not setting or count < 2:
        return {}
    groups = getattr(config, "n_group", None)  # DeepSeek first selects groups of experts
    return {setting: count, **({"topk_group": groups} if groups else {})}


def layers_of(config: Any, layers: Sequence[int]) -> dict[str, Any]:
    """Return the settings of a configuration with these layers alone."""
    settings = {
        name: [value[i] for i in layers]
        if isinstance(value, list) and len(value) == config.num_hidden_layers
        else value
        for name, value in config.to_dict().items()
    }
    return settings | {"num_hidden_layers": len(layers)}


def small_copy(model: Any, vocabulary: int | None = None, **changes: Any) -> Any:
    """Return a random float32 model of the same configuration with two layers (one per kind) and windows of 16 tokens.

    Args:
        model: a model of transformers.
        vocabulary: size of the copy's vocabulary; None for the model's.
        changes: other settings of the copy's configuration.
    """
    from transformers import AutoModelForCausalLM

    config = model.config.get_text_config()
    depth, kinds = config.num_hidden_layers, getattr(config, "layer_types", None) or []
    layers = sorted({*(kinds.index(kind) for kind in set(kinds)), 0, min(1, depth - 1)})
    settings = layers_of(config, layers) | {"initializer_range": 2 / config.hidden_size**0.5}
    settings |= {name: min(size, SMALL_WINDOW) for name, size in windows(config).items()}
    settings |= {name: 64 for name in ("intermediate_size", "moe_intermediate_size") if settings.get(name)}
    settings |= changes
    if vocabulary is not None:
        settings |= {"vocab_size": vocabulary, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    small_config = type(config)(**{k: v for k, v in settings.items() if k not in ("model_type", "quantization_config")})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attention = model.config._attn_implementation
        small = AutoModelForCausalLM.from_config(small_config, dtype=torch.float32, attn_implementation=attention)
    return small.eval().requires_grad_(False)
