"""What is scored of a continuation, for many tokenizers and templates, against passes that share no code with it.

The reference writes the template's text by hand, finds the continuation where the whole text's tokens stop being the
prompt's (not by offsets), and scores it in a forward pass of its own, alone or padded on the left or the right.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from decoders import decoder
from test_tokens import TOKENIZERS
from torch import Tensor

from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice

TEMPLATES: dict[str, tuple[str | None, Callable[[str], str]]] = {
    "none": (None, lambda text: text),
    "inst": ("<s>[INST] {{ messages[-1].content }} [/INST]", lambda text: f"<s>[INST] {text} [/INST]"),
    "chatml": (
        "{% for m in messages %}<s>{{ m.role }}:{{ m.content }}</s>{% endfor %}<s>assistant:",
        lambda text: f"<s>system:be kind</s><s>user:{text}</s><s>assistant:",
    ),
    "words": (
        "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}assistant :",
        lambda text: f"system : be kind user : {text} assistant :",
    ),
}
PROMPTS = ("hello", "is [/INST] a word? : no", "assistant: ham", "a")  # with separators of the templates in them
OPTIONS = (" ham", " no", " hello there")


def language_model(name: str, template: str) -> LLM:
    tokenizer = TOKENIZERS[name]()
    chat = TEMPLATES[template][0]
    if chat is not None:
        tokenizer.chat_template = chat
    settings: dict[str, Any] = {} if chat is None else {"chat": True, "system": "be kind"}
    return LLM("llama", normalize="none", **settings).adopt(decoder("llama", vocab_size=320), tokenizer)


def tokens(llm: LLM, template: str, prompt: str, option: str) -> tuple[list[int], int]:
    """Ids of the whole text, and where the continuation begins."""
    special, text = template == "none", TEMPLATES[template][1](prompt)
    ends = 2 if special and llm.tokenizer("a")["input_ids"][-1] == 2 else None
    alone, whole = (list(llm.tokenizer(t, add_special_tokens=special)["input_ids"]) for t in (text, text + option))
    if ends is not None:  # a tokenizer that ends every text
        alone, whole = alone[:-1], whole[:-1]
    same = [a == b for a, b in zip(alone, whole, strict=False)]
    return whole, same.index(False) if False in same else len(same)


def single(llm: LLM, ids: list[int], start: int) -> float:
    logp = llm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logp[i - 1, ids[i]]) for i in range(start, len(ids)))


def padded(llm: LLM, rows: list[tuple[list[int], int]], left: bool) -> list[float]:
    longest = max(len(ids) for ids, _ in rows)
    batch, mask = torch.zeros(len(rows), longest, dtype=torch.int64), torch.zeros(len(rows), longest, dtype=torch.int64)
    first = [longest - len(ids) if left else 0 for ids, _ in rows]
    for i, (ids, _) in enumerate(rows):
        batch[i, first[i] : first[i] + len(ids)] = torch.tensor(ids)
        mask[i, first[i] : first[i] + len(ids)] = 1
    position = (mask.cumsum(1) - 1).clamp_min(0)
    logp: Tensor = llm.model(batch, attention_mask=mask, position_ids=position).logits.log_softmax(-1)
    return [
        sum(float(logp[i, first[i] + k - 1, ids[k]]) for k in range(start, len(ids)))
        for i, (ids, start) in enumerate(rows)
    ]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("name", TOKENIZERS)
@torch.no_grad()
def test_continuations_are_scored_as_single_passes_score_them(name: str, template: str) -> None:
    if name == "no offsets" and template != "none":
        pytest.skip("it has no chat template")
    llm = language_model(name, template)
    scores = llm.scores([MultipleChoice(prompt, OPTIONS) for prompt in PROMPTS])[0]
    rows = [tokens(llm, template, prompt, option) for prompt in PROMPTS for option in OPTIONS]
    assert all(0 < start < len(ids) for ids, start in rows)
    expected = torch.tensor([single(llm, *row) for row in rows]).reshape(scores.shape)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    for left in (True, False):
        torch.testing.assert_close(
            scores, torch.tensor(padded(llm, rows, left)).reshape(scores.shape), rtol=1e-5, atol=1e-5
        )


def test_a_mask_that_is_off_by_one_would_be_seen() -> None:
    llm = language_model("letters", "inst")
    scores = llm.scores([MultipleChoice(PROMPTS[1], OPTIONS)])[0]
    rows = [tokens(llm, "inst", PROMPTS[1], option) for option in OPTIONS]
    for shift in (-1, 1):
        wrong = torch.tensor([single(llm, ids, start + shift) for ids, start in rows])
        assert (scores[0] - wrong).abs().min() > 1e-3
