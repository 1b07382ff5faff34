"""Random Llamas of several sizes made on the device itself, and what is measured on them."""

import gc
from typing import Any, NamedTuple

import side_by_side
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lightning_steer.lm.language_model import LLM

Architecture = dict[str, int]


class Row(NamedTuple):
    """A line of the table."""

    part: str
    what: str
    value: str
    n: int = 1
    holds: bool | None = None
    """Of a law or a bound; None if there is none."""


class Form(NamedTuple):
    """The sizes of a run."""

    law: Architecture
    models: dict[str, Architecture]
    """By the name in the table, the smaller one first."""
    probes: tuple[int, int, int]
    """Layers, width, rows."""
    batches: tuple[int, ...]
    """Rows that are generated side by side."""
    new: int
    texts: int
    compiler: dict[str, Any]
    """Settings of torch.compile."""


LAW = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 352}
TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
FULL = Form(
    LAW,
    {
        "1B": {
            "hidden_size": 2048,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 8192,
        },
        "7B": {
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "intermediate_size": 11008,
        },
    },
    (36, 2048, 2100),
    (1, 8, 64),
    64,
    256,
    {"mode": "reduce-overhead"},  # CUDA graphs
)
SMALL = Form(
    TINY,
    {"1B's form": TINY, "7B's form": {**TINY, "num_hidden_layers": 4}},
    (3, 16, 200),
    (1, 3),
    4,
    6,
    {"backend": "eager"},  # needs no compiler
)


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """A token for every byte, so that every text can be read."""
    inner = Tokenizer(BPE({letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    inner.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore[assignment]
    inner.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False)


def language_model(
    architecture: Architecture, dtype: torch.dtype, tokenizer: Any, vocabulary: int, layers: int | list[int] = -1
) -> LLM:
    """Make a random Llama on the device; raises torch.OutOfMemoryError if it does not fit."""
    config = AutoConfig.for_model("llama", vocab_size=vocabulary, tie_word_embeddings=False, **architecture)
    config.pad_token_id = config.bos_token_id = config.eos_token_id = None
    torch.manual_seed(0)
    with torch.device(side_by_side.DEVICE):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return LLM("random", layers=layers).adopt(model.eval().requires_grad_(False), tokenizer)


def of_words(architecture: Architecture, dtype: torch.dtype, layers: int | list[int] = -1) -> LLM:
    """Make a random Llama that reads words."""
    vocabulary = 32000 if side_by_side.DEVICE == "cuda" else len(side_by_side.WORDS) + 8
    return language_model(architecture, dtype, side_by_side.words_tokenizer(), vocabulary, layers)


def free() -> None:
    """Give the memory of earlier models back."""
    gc.collect()
    if side_by_side.DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
