"""Tiny decoders whose layers see a window or a chunk of a text, and the attention implementations that each has."""

from typing import Any

import torch
from decoders import FAMILIES, GROUPED
from transformers import AutoConfig, AutoModelForCausalLM

WIDE = {**GROUPED, "head_dim": 8}
TURNS = {"layer_types": ["sliding_attention", "full_attention"] * 2}
BOTH = ("eager", "sdpa")
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
WINDOWED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "mistral": (GROUPED, BOTH),
    "gemma2": ({**WIDE, **TURNS}, ("eager",)),
    "gemma3_text": ({**WIDE, **TURNS}, BOTH),
    "phi3": (GROUPED, BOTH),
    "gpt_oss": ({**WIDE, **TURNS, **EXPERTS}, ("eager",)),
}
OTHERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "cohere2": ({**WIDE, **TURNS, "logit_scale": 0.3}, BOTH),
    "mixtral": ({**GROUPED, "num_local_experts": 4}, BOTH),
    "starcoder2": (GROUPED, BOTH),
    "olmo3": ({**GROUPED, **TURNS}, BOTH),
    "qwen2": ({**GROUPED, **TURNS, "use_sliding_window": True}, BOTH),
    "qwen3": ({**WIDE, **TURNS, "use_sliding_window": True}, BOTH),
    "llama4_text": (
        {
            **WIDE,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "intermediate_size_mlp": 48,
            "no_rope_layers": [1, 0, 1, 0],
        },
        BOTH,
    ),
    "gpt_neo": (FAMILIES["gpt_neo"] | {"max_position_embeddings": 512}, ("eager",)),
}
ALL = {**WINDOWED, **OTHERS}
SIZE = {"llama4_text": "attention_chunk_size", "gpt_neo": "window_size"}


def windowed(family: str, window: int, attention: str = "eager", **more: Any) -> Any:
    """A random decoder of 4 layers that sees ``window`` tokens in all layers, or in every other one."""
    torch.manual_seed(0)
    size = {SIZE.get(family, "sliding_window"): window}
    special = {"vocab_size": 35, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family, **{"initializer_range": 0.3, **special, **ALL[family][0], **size, **more})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    return model.eval().requires_grad_(False)
