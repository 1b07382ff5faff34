"""Positions that are biases, or frequencies that depend on the longest row: a row is scored as it is by itself."""

from typing import Any

import pytest
import torch
from decoders import GROUPED, SHORT, SIMPLE, decoder, letters
from test_windows import QUESTIONS, TEXTS, TOLERANCE, push, reference

from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import GeneratedTokens
from lightning_steer.lm.tokens import MultipleChoice

ORIGINAL = 64
MPT = {"d_model": 32, "n_heads": 4, "n_layers": 4, "expansion_ratio": 2, "max_seq_len": 512}
BIASED: dict[str, tuple[str, dict[str, Any]]] = {
    "bloom": ("bloom", {}),
    "mpt": ("mpt", MPT),
    "falcon, alibi": ("falcon", {"alibi": True}),
    "falcon, rotary": ("falcon", {"alibi": False}),
    "falcon, new": ("falcon", {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "gpt2": ("gpt2", SHORT),
    "gptj": ("gptj", {**SHORT, "rotary_dim": 4}),
    "gpt_neox": ("gpt_neox", SIMPLE),
}


def phi3() -> Any:
    factors = {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}
    rope = {"rope_type": "longrope", "original_max_position_embeddings": ORIGINAL, **factors}
    settings = {"original_max_position_embeddings": ORIGINAL, "max_position_embeddings": 512, "rope_parameters": rope}
    return decoder("phi3", **GROUPED, **settings)


def llama() -> Any:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0}
    return decoder("llama", max_position_embeddings=ORIGINAL, rope_parameters=rope)


MADE = {"longrope": phi3, "dynamic": llama}
SMALL = [MultipleChoice(text[:40], ("a", " b c")) for text in TEXTS]
LONG = MultipleChoice(TEXTS[0], ("a", " b c"))
made = pytest.mark.parametrize("kind", MADE)


@pytest.mark.parametrize("name", BIASED)
def test_long_rows_are_scored_as_by_themselves(name: str) -> None:
    family, settings = BIASED[name]
    llm = LLM(name, [1, 2], positions=GeneratedTokens()).adopt(decoder(family, **settings), letters())
    for packs in {llm.packs, False}:
        llm.packs = packs
        torch.testing.assert_close(llm.scores(QUESTIONS)[0], reference(llm), **TOLERANCE)
        torch.testing.assert_close(llm.scores(QUESTIONS, push(llm))[0], reference(llm, push(llm)), **TOLERANCE)


@made
@torch.no_grad()
def test_the_frequencies_do_depend_on_the_longest_row(kind: str) -> None:
    """Why there is a limit: in the model itself a long neighbour changes a short row."""
    model = MADE[kind]()
    short, long = torch.arange(40) % 30, torch.arange(100) % 30
    alone = model(short[None], use_cache=False).logits[0]
    beside = torch.stack([torch.cat([short, long.new_zeros(60)]), long])
    together = model(beside, use_cache=False).logits[0, :40]
    assert (together - alone).abs().max() > 0.01 * alone.abs().max()


@made
@pytest.mark.parametrize("use", ["scores", "observe", "activations", "drift", "generate"])
def test_a_row_beyond_the_limit_is_refused_wherever_rows_are_batched(kind: str, use: str) -> None:
    llm = LLM("tiny", [1, 2]).adopt(MADE[kind](), letters())
    calls = {
        "scores": lambda: llm.scores([*SMALL, LONG]),
        "observe": lambda: llm.observe([*SMALL, LONG]),
        "activations": lambda: llm.activations([*SMALL, LONG]),
        "drift": lambda: llm.drift([LONG.prompt], push(llm)),
        "generate": lambda: llm.generate([TEXTS[0][:40]], max_new_tokens=30),
    }
    why = r" \(of 512: with longrope" if kind == "longrope" else ":"
    with pytest.raises(ValueError, match=f"more than the {ORIGINAL} that tiny reads{why}"):
        calls[use]()


@made
def test_rows_within_the_limit_do_not_depend_on_their_neighbours(kind: str) -> None:
    llm = LLM("tiny", [1, 2], positions=GeneratedTokens()).adopt(MADE[kind](), letters())
    assert llm.packs
    together = llm.scores(SMALL, push(llm))[0]
    for question, scores in zip(SMALL, together, strict=True):
        torch.testing.assert_close(llm.scores([question], push(llm))[0, 0], scores, **TOLERANCE)


@made
@torch.no_grad()
def test_generation_up_to_the_limit_is_the_models_own_and_beyond_it_is_refused(kind: str) -> None:
    """With a cache, tokens beyond the limit would be read beside others that were read with other frequencies."""
    llm, prompt = LLM("tiny", [1, 2]).adopt(MADE[kind](), letters(bos=False)), TEXTS[0][:40]
    new = ORIGINAL - 40 + 1  # the last new token is never read
    ids = llm.prompts([prompt], new)[0]
    for _ in range(new):
        ids.append(int(llm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    written = llm.generate([prompt], max_new_tokens=new, eos_token_id=None)
    assert written == [llm.tokenizer.decode(ids[40:], skip_special_tokens=True)]
    with pytest.raises(ValueError, match=f"40 tokens and {new + 1} new ones are more than the {ORIGINAL}"):
        llm.generate([prompt], max_new_tokens=new + 1)
