"""Windows and chunks of attention: whatever is packed or batched is what plain single forward passes give."""

import copy
import random
from collections.abc import Callable

import pytest
import torch
from decoders import decoder, letters
from torch import Tensor
from windowed import ALL, WINDOWED, windowed

from lightning_steer.hooks import capture
from lightning_steer.lm import packing, windows
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import AllTokens, GeneratedTokens, TokensFrom
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.metrics.drift import next_token_kl

LETTERS = "abcdefghijklmnopqrstuvwxyz ."
DRAW = random.Random(0)
TEXTS = ["".join(DRAW.choices(LETTERS, k=k)) for k in (100, 137, 118, 9)]
OPTIONS = ((" a", " bcdefgh", "xyzu v"), ("q", "r"), (" no", " yes it is", "m"), ("b", "cd"))
QUESTIONS = [MultipleChoice(text, options) for text, options in zip(TEXTS, OPTIONS, strict=True)]
CASES = [(family, implementation) for family, (_, every) in WINDOWED.items() for implementation in every]
QUICK = [(family, every[-1], 16) for family, (_, every) in WINDOWED.items()]
SLOW = [
    pytest.param(family, implementation, window, marks=pytest.mark.slow)
    for family, (_, every) in ALL.items()
    for implementation in every
    for window in (8, 16, 64)
    if (family, implementation, window) not in QUICK
]
cases = pytest.mark.parametrize(("family", "implementation", "window"), [*QUICK, *SLOW])
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def language_model(family: str, implementation: str, window: int, **settings: object) -> LLM:
    settings = {"layers": [1, 2], **settings}
    return LLM(family, **settings).adopt(windowed(family, window, implementation), letters())  # type: ignore[arg-type]


def add(vector: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda h: h + vector


def push(llm: LLM) -> dict[str, Callable[[Tensor], Tensor]]:
    return {site: add(torch.linspace(-1, 1, 32)) for site in llm.sites}


@torch.no_grad()
def alone(llm: LLM, question: MultipleChoice, option: str, edits: dict | None = None) -> float:
    ids, start = llm.tokenizer(question.prompt + option)["input_ids"], len(llm.tokenizer(question.prompt)["input_ids"])
    with llm.steered(edits or {}, torch.tensor([start])):
        logp = llm.model(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
    return float(sum(logp[i - 1, ids[i]] for i in range(start, len(ids))))


def reference(llm: LLM, edits: dict | None = None) -> Tensor:
    scores = torch.full((len(QUESTIONS), 3), -torch.inf)
    for i, question in enumerate(QUESTIONS):
        for j, option in enumerate(question.choices):
            scores[i, j] = alone(llm, question, option, edits)
    return scores


@cases
def test_scores_are_those_of_plain_single_passes(family: str, implementation: str, window: int) -> None:
    llm = language_model(family, implementation, window, positions=GeneratedTokens())
    expected, steered = reference(llm), reference(llm, push(llm))
    assert llm.packs == (family not in {"gpt_neo", "llama4_text"})  # these count in slots
    for packs in {llm.packs, False}:
        llm.packs = packs
        torch.testing.assert_close(llm.scores(QUESTIONS)[0], expected, **TOLERANCE)
        torch.testing.assert_close(llm.scores(QUESTIONS, push(llm))[0], steered, **TOLERANCE)


@cases
def test_a_score_does_not_depend_on_its_neighbours(family: str, implementation: str, window: int) -> None:
    llm = language_model(family, implementation, window)
    together = llm.scores(QUESTIONS)[0]
    for i, question in enumerate(QUESTIONS):
        single = llm.scores([question])[0, 0]
        torch.testing.assert_close(together[i, : len(single)], single, **TOLERANCE)


@cases
def test_a_sweep_is_each_strength_by_itself(family: str, implementation: str, window: int) -> None:
    llm = language_model(family, implementation, window, positions=TokensFrom(-3))
    strengths = torch.tensor([0.0, 1.0, -2.0])
    vector = torch.linspace(-1, 1, 32)
    sweep = {site: lambda h: h + strengths.reshape(-1, 1, 1, 1) * vector for site in llm.sites}
    for strength, scores in zip(strengths, llm.scores(QUESTIONS, sweep, 3), strict=True):
        edits = {site: add(strength * vector) for site in llm.sites}
        torch.testing.assert_close(scores, reference(llm, edits), **TOLERANCE)


@cases
@torch.no_grad()
def test_observations_and_activations_are_those_of_plain_passes(family: str, implementation: str, window: int) -> None:
    llm = language_model(family, implementation, window)
    scores, observed = llm.observe(QUESTIONS)
    torch.testing.assert_close(scores, reference(llm), **TOLERANCE)
    read = llm.activations([MultipleChoice(text) for text in TEXTS])
    llm.read_positions = AllTokens()
    means = llm.observe(QUESTIONS)[1]
    for i, text in enumerate(TEXTS):
        with capture(llm.model, llm.sites) as plain:
            llm.model(torch.tensor([llm.tokenizer(text)["input_ids"]]), use_cache=False)
        for site in llm.sites:
            torch.testing.assert_close(observed[site][i], plain[site][0, -1], **TOLERANCE)
            torch.testing.assert_close(read[site][i], plain[site][0, -1], **TOLERANCE)
            torch.testing.assert_close(means[site][i], plain[site][0].mean(0), **TOLERANCE)


@cases
@torch.no_grad()
def test_drift_is_that_of_plain_passes(family: str, implementation: str, window: int) -> None:
    llm = language_model(family, implementation, window)
    drift = llm.drift(TEXTS, push(llm))
    for i, text in enumerate(TEXTS):
        ids = torch.tensor([llm.tokenizer(text)["input_ids"]])
        plain = llm.model(ids, use_cache=False).logits[0].log_softmax(-1)
        with llm.steered(push(llm)):
            steered = llm.model(ids, use_cache=False).logits[0].log_softmax(-1)
        for drift_part, logp in ((drift.base[i], plain), (drift.steered[0, i], steered)):
            expected = logp[:-1].gather(1, ids[0, 1:, None]).sum().double()
            torch.testing.assert_close(drift_part, expected, **TOLERANCE)
        kl = next_token_kl(plain, steered).double()
        torch.testing.assert_close(drift.kl[0, i, : len(kl)], kl, **TOLERANCE)


@cases
@torch.no_grad()
def test_generation_is_the_likeliest_token_of_plain_passes(family: str, implementation: str, window: int) -> None:
    llm = language_model(family, implementation, window, positions=GeneratedTokens())
    texts = llm.generate(TEXTS, edits=push(llm), max_new_tokens=4, min_new_tokens=4)
    for text, continued in zip(TEXTS, texts, strict=True):
        ids = llm.tokenizer(text)["input_ids"]
        prompt = torch.tensor([len(ids)])
        for _ in range(4):
            with llm.steered(push(llm), prompt):
                logits = llm.model(torch.tensor([ids]), use_cache=False).logits[0, -1]
            logits[llm.tokenizer.eos_token_id] = -torch.inf
            ids.append(int(logits.argmax()))
        assert continued == llm.tokenizer.decode(ids[int(prompt) :], skip_special_tokens=True)


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
@torch.no_grad()
def test_a_window_lost_wrong_or_counted_in_slots_is_seen(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The measure that decides on packing is small for the right masks alone."""
    llm, right = language_model(family, "eager", 16), windows.masks
    assert packing.distance(llm.decoder, 20, 0) < 1e-5
    llm.decoder.config = copy.deepcopy(llm.model.config)
    for size in (15, 17, 10_000):
        llm.decoder.config.sliding_window = size
        assert packing.distance(llm.decoder, 20, 0) > 1e-3
    llm.decoder.config = llm.model.config

    def in_slots(config: object, form: tuple[str, ...], mask: Tensor, position: Tensor) -> object:
        return right(config, form, mask, torch.arange(position.shape[1]).expand_as(position))

    monkeypatch.setattr("lightning_steer.lm.decoder.masks", in_slots)
    assert packing.distance(llm.decoder, 20, 0) > 1e-3


def test_long_windows_are_tried_on_a_small_copy() -> None:
    model = decoder("gemma2", sliding_window=windows.LONGEST_WINDOW + 1)
    state = torch.get_rng_state()
    copied = windows.small_copy(model, 64)
    assert torch.equal(state, torch.get_rng_state())
    assert copied.config.num_hidden_layers == 2
    assert windows.windows(copied.config) == {"sliding_window": 16}
    assert set(copied.config.layer_types) == {"full_attention", "sliding_attention"}
    assert copied.dtype == torch.float32
