"""The papers' model families with random weights and few dimensions, true depth and tokenizer class; data in the true forms."""

import json
import string
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GemmaTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    Qwen2Tokenizer,
)

LETTERS = [f"<0x{i:02X}>" for i in range(256)] + ["▁", *(c for c in string.printable if not c.isspace())]


def _numbered(special: list[str], rest: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate([*special, *rest])}


def gemma_tokenizer() -> PreTrainedTokenizerBase:
    """A token for every letter, in the class of Gemma."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    return GemmaTokenizer(vocab=_numbered(special, LETTERS), merges=[], add_bos_token=True)


def saved(folder: Path, family: str, layers: int, tokenizer: PreTrainedTokenizerBase, **settings: Any) -> str:
    """A random model of a family as a local folder."""
    torch.manual_seed(0)
    special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos")}
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), num_hidden_layers=layers, initializer_range=0.3, **special, **sizes, **settings
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def gemma2(folder: Path) -> str:
    """gemma-2-2b's family, 26 blocks."""
    return saved(folder, "gemma2", 26, gemma_tokenizer())


def stereoset(path: Path, terms: int = 4) -> None:
    """StereoSet in the form of the official dev.json, both tasks, every bias type."""
    data: dict[str, list[Any]] = {"intersentence": [], "intrasentence": []}
    for task, examples in data.items():
        for kind in ("gender", "profession", "race", "religion"):
            for i in range(terms):
                context = f"The BLANK {i} is" if task == "intrasentence" else f"The {kind} {i} came."
                words = ("sly", "kind", "blue")
                texts = [f"The {word} {i} is" if task == "intrasentence" else f"He was {word}." for word in words]
                name = f"{task}/{kind}/{i}"
                labels = ("stereotype", "anti-stereotype", "unrelated")
                rows = zip(texts, labels, strict=True)
                examples.append({
                    "id": name, "target": f"{kind} {i}", "bias_type": kind, "context": context,
                    "sentences": [{"sentence": t, "id": f"{name}/{g}", "gold_label": g, "labels": []} for t, g in rows],
                })  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "1.1", "data": data}))
