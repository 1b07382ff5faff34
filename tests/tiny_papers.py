"""The papers' model families: random weights, few dimensions, true depth, the tokenizer's own class; and tiny data."""

import json
import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as AsText
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel as Bytes
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GemmaTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from lightning_steer.studies.published.caa import BEHAVIOURS

PRINTABLE = [f"<0x{i:02X}>" for i in range(256)] + ["▁", *(c for c in string.printable if not c.isspace())]
BYTES = sorted(Bytes.alphabet())
LLAMA2_CHAT = (
    "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for m in messages %}{{ bos_token + '[INST] ' + system + m['content'] + ' [/INST]' }}{% endfor %}"
)
"""Turns as Llama 2 writes them."""


LABELS = "ABCD"
"""Each is one token with the blank before it, so that a random model writes a label now and then."""


def _numbered(special: list[str], rest: list[str], blank: str) -> tuple[dict[str, int], list[Any]]:
    """Return a vocabulary, and the merges that make the labels."""
    tokens = [*special, *rest, *(blank + label for label in LABELS)]
    return {token: number for number, token in enumerate(tokens)}, [(blank, label) for label in LABELS]


def gemma_tokenizer() -> PreTrainedTokenizerBase:
    vocabulary, merges = _numbered(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], PRINTABLE, "▁")
    return GemmaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True)


def llama2_tokenizer(chat: bool) -> PreTrainedTokenizerBase:
    vocabulary, merges = _numbered(["<unk>", "<s>", "</s>"], PRINTABLE, "▁")
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True)
    tokenizer.chat_template = LLAMA2_CHAT if chat else None
    return tokenizer


def qwen_tokenizer() -> PreTrainedTokenizerBase:
    vocabulary, merges = _numbered([], [*BYTES, "<|endoftext|>"], "Ġ")
    return Qwen2Tokenizer(vocab=vocabulary, merges=merges)


def saved(folder: Path, family: str, blocks: int, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> str:
    """A random model of a family as a local folder; every token is a letter or a byte, or a label."""
    torch.manual_seed(seed)
    special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos")}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": blocks, **heads}
    vocabulary = {"vocab_size": len(tokenizer), "initializer_range": 0.3, **special}
    config = AutoConfig.for_model(family, **sizes, **vocabulary)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        model.get_output_embeddings().weight[-len(LABELS) :] *= 4  # the labels are often the likeliest tokens
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def gemma2(folder: Path, seed: int = 0) -> str:
    """gemma-2-2b: Gemma2, 26 blocks."""
    return saved(folder, "gemma2", 26, gemma_tokenizer(), seed)


def llama2(folder: Path, chat: bool = True, seed: int = 0) -> str:
    """Llama-2-7b: Llama, 32 blocks."""
    return saved(folder, "llama", 32, llama2_tokenizer(chat), seed)


def llama3(folder: Path, seed: int = 0) -> str:
    """Llama-3.2-1B: Llama, 16 blocks, tokens of bytes without a class of its own."""
    inner = Tokenizer(BPE(*_numbered(["<|begin_of_text|>", "<|end_of_text|>"], BYTES, "Ġ")))
    inner.pre_tokenizer = Bytes(add_prefix_space=False)  # type: ignore[assignment]
    inner.decoder = AsText()  # type: ignore[assignment]
    inner.post_processor = TemplateProcessing(  # type: ignore[assignment]
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    special = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    return saved(folder, "llama", 16, PreTrainedTokenizerFast(tokenizer_object=inner, **special), seed)


def qwen2(folder: Path, seed: int = 0) -> str:
    """Qwen2.5-3B: Qwen2, 36 blocks."""
    return saved(folder, "qwen2", 36, qwen_tokenizer(), seed)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def stereoset(path: Path, terms: int = 4) -> None:
    """StereoSet in the form of the official dev.json, both tasks, every bias type."""
    data: dict[str, list[Any]] = {"intersentence": [], "intrasentence": []}
    for task, examples in data.items():
        for kind in ("gender", "profession", "race", "religion"):
            for i in range(terms):
                whole = task == "intrasentence"
                texts = [f"The {w} {i} is" if whole else f"He was {w}." for w in ("sly", "kind", "blue")]
                name, labels = f"{task}/{kind}/{i}", ("stereotype", "anti-stereotype", "unrelated")
                rows = [
                    {"sentence": text, "id": f"{name}/{label}", "gold_label": label, "labels": []}
                    for text, label in zip(texts, labels, strict=True)
                ]
                context = f"The BLANK {i} is" if whole else f"The {kind} {i} came."
                more = {"id": name, "target": f"{kind} {i}", "bias_type": kind}
                examples.append({**more, "context": context, "sentences": rows})
    write(path, json.dumps({"version": "1.1", "data": data}))


def caa(folder: Path, train: int = 8, test: int = 4) -> None:
    """The A/B files of a clone of CAA, for all seven behaviours."""
    for behaviour in BEHAVIOURS:
        for file, n in ((f"generate/{behaviour}/generate_dataset", train), (f"test/{behaviour}/test_dataset_ab", test)):
            rows = [
                {
                    "question": f"{file[:4]} {i}: tea or ale?\n\nChoices:\n (A) Tea\n (B) Ale",
                    "answer_matching_behavior": " (A)" if i % 2 else " (B)",
                    "answer_not_matching_behavior": " (B)" if i % 2 else " (A)",
                }
                for i in range(n)
            ]
            write(folder / "datasets" / f"{file}.json", json.dumps(rows))


def steer_wrk(folder: Path, n: int = 6) -> None:
    """The open-ended pairs of a clone of steer_wrk."""
    for name in ("myopia", "corrigible", "hallucination"):
        rows = [
            {"question": f"[INST] {name} {i}, now or later? [/INST] I take it {when}."}
            for when in ("later", "now")
            for i in range(n)
        ]
        write(folder / f"results/generated_data/{name}.json", json.dumps(rows))


def tasks(folder: Path, n: int = 60) -> None:
    """Local copies of MERA's five tasks in their own formats."""
    rows = [f"{'spam' if i % 3 == 0 else 'ham'}\t{'win a prize' if i % 3 == 0 else 'see you at'} {i}" for i in range(n)]
    write(folder / "sms_spam/SMSSpamCollection", "\n".join(rows) + "\n")
    for task, answers in (
        ("yes_no_question", ("Yes", "No")),
        ("sentiment_analysis", ("positive", "neutral", "negative")),
    ):
        lines = [
            json.dumps({"inputs": f"Item {i}?", "answer": answers[i % len(answers)], "task_type": task})
            for i in range(n)
        ]
        write(folder / f"finance/{task}.jsonl", "\n".join(lines) + "\n")
    for level in ("high_school", "professional"):
        table = [f"What is {i}?,a{i},b{i},c{i},d{i},{'ABCD'[i % 4]}" for i in range(n)]
        write(folder / f"mmlu/test/{level}_biology_test.csv", "\n".join(table) + "\n")


def prompts(folder: Path, n: int = 64) -> None:
    """A user's own prompt files."""
    for kind, word in (("harmful", "break"), ("harmless", "bake")):
        write(folder / f"{kind}.txt", "\n\n".join(f"How to {word} {i}?" for i in range(n)))
