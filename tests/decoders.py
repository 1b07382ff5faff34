"""Tiny random decoders of many families, and tokenizers, made on the spot."""

from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

GROUPED = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}
SIMPLE = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48}
SHORT = {"n_embd": 32, "n_layer": 4, "n_head": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "gemma2": {**GROUPED, "head_dim": 8},
    "gemma3_text": {**GROUPED, "head_dim": 8},
    "gpt2": SHORT,
    "gpt_neox": SIMPLE,
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 4,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 2]],
        "max_position_embeddings": 128,
    },
    "opt": {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "word_embed_proj_dim": 32,
    },
    "bloom": {"hidden_size": 32, "n_layer": 4, "n_head": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4},
    "phi": SIMPLE,
    "olmo2": GROUPED,
    "mixtral": {**GROUPED, "num_local_experts": 4},
    "gptj": {**SHORT, "rotary_dim": 4},
}
MORE: dict[str, dict[str, Any]] = {
    "granite": {
        **GROUPED,
        "residual_multiplier": 0.22,
        "embedding_multiplier": 12.0,
        "logits_scaling": 4.0,
        "attention_multiplier": 0.1,
    },
    "starcoder2": GROUPED,
    "cohere": GROUPED,
    "gpt_oss": {**GROUPED, "head_dim": 8, "num_local_experts": 4},
}
"""Families with something of their own on the way to the stream or to the logits."""
LETTERS = " abcdefghijklmnopqrstuvwxyz?.,:"
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


def decoder(family: str, dtype: torch.dtype = torch.float32, seed: int = 0, **settings: Any) -> Any:
    """A random model with weights large enough that nothing about it is nearly linear."""
    torch.manual_seed(seed)
    defaults = {"vocab_size": len(SPECIAL) + len(LETTERS), "initializer_range": 0.3}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family, **{**defaults, **special, **{**FAMILIES, **MORE}.get(family, {}), **settings})
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)


def letters(bos: bool = True, pad: bool = True) -> PreTrainedTokenizerFast:
    """A token for every letter."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *LETTERS])}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = Split("", "isolated")  # type: ignore[assignment]
    if bos:
        inner.post_processor = TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])  # type: ignore[assignment]
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **({"pad_token": "<pad>"} if pad else {})}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)
