"""Without a key-value cache the same tokens are steered as with one: all scopes, left padding, beams, new prompts."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from conftest import rows
from decoders import decoder, letters
from torch import Tensor, nn

from lightning_steer import vectors
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import (
    AllTokens,
    GeneratedTokens,
    LastPromptToken,
    Positions,
    PromptTokens,
    TokensFrom,
)
from lightning_steer.methods import MeanDifference

POSITIONS: list[Positions] = [
    AllTokens(),
    PromptTokens(),
    LastPromptToken(),
    GeneratedTokens(),
    TokensFrom(-2),
    TokensFrom(-1),
    TokensFrom(3),
]
PROMPTS = ["the cat sat on", "a", "what is this: a longer one"]
NAMES = [f"{type(s).__name__}{getattr(s, 'offset', '')}" for s in POSITIONS]


def tiny(positions: Positions, family: str = "llama") -> tuple[LLM, vectors.SteeringVector]:
    llm = LLM("tiny", 1, positions=positions).adopt(decoder(family), letters())
    return llm, vectors.of(llm, {llm.sites[0]: MeanDifference(32).fit(rows(d=32))}, 3.0)


@contextmanager
def steered_tokens(model: nn.Module, site: str) -> Iterator[list[Tensor]]:
    """Inputs of the block after the site, of every call."""
    seen: list[Tensor] = []
    block, number = site.rsplit(".", 1)
    handle = model.get_submodule(f"{block}.{int(number) + 1}").register_forward_pre_hook(
        lambda _module, args: seen.append(args[0].clone())
    )
    try:
        yield seen
    finally:
        handle.remove()


def encoded(llm: LLM, prompts: list[str]) -> dict[str, Tensor]:
    llm.tokenizer.padding_side = "left"
    return dict(llm.tokenizer(prompts, return_tensors="pt", padding=True))


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("positions", POSITIONS, ids=NAMES)
def test_edit_steers_the_same_tokens_without_a_cache(positions: Positions, beams: int) -> None:
    llm, vector = tiny(positions)
    inputs = encoded(llm, PROMPTS)
    settings = {"max_new_tokens": 6, "do_sample": False, "num_beams": beams, "pad_token_id": 0, "eos_token_id": None}
    settings |= {"output_logits": True, "return_dict_in_generate": True}
    made = {}
    for cache in (True, False):
        with vectors.edit(llm.model, vector):
            made[cache] = llm.model.generate(**inputs, **settings, use_cache=cache)
    plain = llm.model.generate(**inputs, **settings)
    assert torch.equal(made[True].sequences, made[False].sequences)
    for with_cache, without in zip(made[True].logits, made[False].logits, strict=True):
        torch.testing.assert_close(with_cache, without, rtol=1e-4, atol=1e-4)
    assert any((a - b).abs().max() > 1e-2 for a, b in zip(plain.logits, made[True].logits, strict=True))


@pytest.mark.parametrize("family", ["gpt2", "bloom", "gemma2"])
@pytest.mark.parametrize(
    "positions", [GeneratedTokens(), LastPromptToken()], ids=["GeneratedTokens", "LastPromptToken"]
)
def test_the_models_own_setting_counts_in_every_family(positions: Positions, family: str) -> None:
    llm, vector = tiny(positions, family)
    with vectors.edit(llm, vector):
        expected = llm.generate(PROMPTS, max_new_tokens=6)
        llm.model.generation_config.use_cache = False
        assert llm.generate(PROMPTS, max_new_tokens=6) == expected
        llm.model.config.use_cache = False
        assert llm.generate(PROMPTS, max_new_tokens=6) == expected
    edits = {llm.sites[0]: lambda h: vector.maps[0](h, 3.0)}
    assert llm.generate(PROMPTS, edits=edits, max_new_tokens=6) == expected


@pytest.mark.parametrize("cache", [True, False])
def test_a_new_prompt_is_known_as_one(cache: bool) -> None:
    """Another call of generate begins anew, also if its prompt is what the last one was, and more."""
    llm, vector = tiny(LastPromptToken())
    longer = [PROMPTS[0], PROMPTS[0] + " a mat"]
    expected = []
    for prompt in longer:
        with vectors.edit(llm.model, vector):
            expected.append(llm.model.generate(**encoded(llm, [prompt]), max_new_tokens=4, pad_token_id=0))
    with vectors.edit(llm.model, vector), steered_tokens(llm.model, llm.sites[0]):
        for prompt, tokens in zip(longer, expected, strict=True):
            made = llm.model.generate(**encoded(llm, [prompt]), max_new_tokens=4, pad_token_id=0, use_cache=cache)
            assert torch.equal(made, tokens)


def test_other_prompts_by_plain_calls_are_new_ones() -> None:
    llm, vector = tiny(LastPromptToken())
    texts = ["the cat", "the dog sat there", "a", "the dog sat there"]
    with vectors.edit(llm.model, vector), steered_tokens(llm.model, llm.sites[0]) as seen:
        for text in texts:
            llm.model(**encoded(llm, [text]), use_cache=False)
    with steered_tokens(llm.model, llm.sites[0]) as plain:
        for text in texts:
            llm.model(**encoded(llm, [text]), use_cache=False)
    for steered, unsteered in zip(seen, plain, strict=True):
        moved = (steered != unsteered).any(-1)[0]
        assert moved.nonzero().flatten().tolist() == [len(moved) - 1]


@pytest.mark.parametrize("positions", POSITIONS, ids=NAMES)
def test_a_growing_text_by_plain_calls_needs_the_prompts_length(positions: Positions) -> None:
    """Nothing tells it from another prompt that begins alike, so nothing is assumed."""
    llm, vector = tiny(positions)
    short, long = (encoded(llm, [text]) for text in ("the cat", "the cat sat"))
    with vectors.edit(llm.model, vector):
        llm.model(**short, use_cache=False)
        if positions.needs_prompt:
            with pytest.raises(ValueError, match="say with prompt_lengths where the prompt ends"):
                llm.model(**long, use_cache=False)
        else:
            llm.model(**long, use_cache=False)
    length = short["attention_mask"].sum(1)
    with vectors.edit(llm.model, vector, prompt_lengths=length):
        first = llm.model(**short, use_cache=True)
        rest = {"input_ids": long["input_ids"][:, int(length) :], "attention_mask": long["attention_mask"]}
        expected = llm.model(**rest, past_key_values=first.past_key_values).logits
        whole = llm.model(**long, use_cache=False).logits
    torch.testing.assert_close(whole[:, int(length) :], expected, rtol=1e-4, atol=1e-4)


def test_generate_is_the_models_own_again_also_after_an_error() -> None:
    llm, vector = tiny(LastPromptToken())
    with pytest.raises(ArithmeticError), vectors.edit(llm.model, vector), vectors.edit(llm.model, vector):
        raise ArithmeticError
    assert "generate" not in vars(llm.model)
