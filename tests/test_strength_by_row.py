"""A strength for each row reaches its own row, or is refused: nothing sorts rows, or takes rows for beams, unseen."""

from pathlib import Path

import pytest
import torch
from decoders import decoder, letters

from lightning_steer.hooks import capture
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import AllTokens
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import MeanDifference
from lightning_steer.vectors import SteeringVector, edit, load, of, save

QUESTIONS = [MultipleChoice("a b c d e f", (" g",)), MultipleChoice("a b", (" g",))]


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM("tiny", [1]).adopt(decoder("llama"), letters())


@pytest.fixture(scope="module")
def vector(llm: LLM) -> SteeringVector:
    (site,) = llm.sites
    method = MeanDifference(llm.width(site))
    method.vector = torch.linspace(-1, 1, llm.width(site))
    method.fitted = True
    return of(llm, {site: method}, 1.0)


def test_what_sorts_rows_refuses_a_strength_for_each(llm: LLM, vector: SteeringVector) -> None:
    strengths = torch.tensor([0.0, 4.0])
    for act in (llm.scores, llm.activations, llm.observe):
        with pytest.raises(ValueError, match="a strength for each row"), edit(llm, vector, strengths):
            act(QUESTIONS)
    with edit(llm, vector, 4.0):
        both = llm.scores(QUESTIONS)[0]
        alone = torch.cat([llm.scores([question])[0] for question in QUESTIONS])
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(llm.scores(QUESTIONS)[0], both)  # the mark is gone, too


def test_rows_are_no_beams(llm: LLM, vector: SteeringVector) -> None:
    ids = torch.ones(4, 3, dtype=torch.int64)
    with edit(llm, vector, torch.tensor([0.0, 1.0])):
        with pytest.raises(ValueError, match="2 values cannot be given to 4 rows"):
            llm.model(ids)
        with pytest.raises(ValueError, match="2 values cannot be given to 4 rows"):
            llm.generate(["a b"] * 4, max_new_tokens=2)
        assert len(llm.generate(["a b"] * 2, max_new_tokens=2, num_beams=2)) == 2
        assert len(llm.model(ids[:2]).logits) == 2


def test_beams_have_their_prompts_strength(llm: LLM, vector: SteeringVector) -> None:
    prompts, strengths = ["a b c", "d e"], torch.tensor([0.0, 8.0])
    with edit(llm, vector, strengths):
        both = llm.generate(prompts, max_new_tokens=4, num_beams=3)
    for prompt, strength, text in zip(prompts, strengths.tolist(), both, strict=True):
        with edit(llm, vector, strength):
            assert llm.generate(prompt, max_new_tokens=4, num_beams=3) == text


def test_a_site_twice_is_refused(llm: LLM, vector: SteeringVector, tmp_path: Path) -> None:
    card = vector.card._replace(sites=vector.card.sites * 2)
    with pytest.raises(ValueError, match="named twice"):
        save(tmp_path / "twice.safetensors", SteeringVector(vector.maps * 2, card))
    assert load(save(tmp_path / "once.safetensors", vector)).card.sites == vector.card.sites


def test_means_over_tokens_are_as_exact_as_their_precision(llm: LLM) -> None:
    """A weight of 1/13 in bfloat16 would scale the mean by .997."""
    half = LLM("tiny", [1], read_positions=AllTokens()).adopt(decoder("llama").to(torch.bfloat16), letters())
    for text in ("a b c", "a b c d e f g h i j k l m"):
        (site,) = half.sites
        with capture(half.model, [site]) as seen:
            mean = half.activations([MultipleChoice(text)])[site][0].float()
        exact = seen[site].float().reshape(-1, mean.shape[-1]).mean(0)
        torch.testing.assert_close(mean, exact.to(torch.bfloat16).float(), rtol=0, atol=0)
