"""Dual steering: its Fisher information is the output's, and no shift that raises the probe as much costs less."""

import pytest
import torch
from conftest import rows
from decoders import decoder, letters
from torch import Tensor

from lightning_steer.hooks import edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import GeneratedTokens
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import DualSteering, MeanDifference
from lightning_steer.networks.gradients import weighted_gradients
from lightning_steer.networks.toy import ToyBackbone
from lightning_steer.records import Activations

HEAD = torch.randn(11, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * torch.logspace(-1, 0.3, 8)
"""A vocabulary head ``[V, d]``, some directions of which matter more than others."""
TEXTS = [MultipleChoice("hello there"), MultipleChoice("hi"), MultipleChoice("a longer one than this")]


def kl(logp: Tensor, other: Tensor) -> Tensor:
    return (logp.exp() * (logp - other)).sum(-1)


def softmaxed(h: Tensor) -> Tensor:
    return (h.double() @ HEAD.T).log_softmax(-1)


def seen_through_the_head() -> Activations:
    seen = rows(n=200)
    h = seen.h.double().requires_grad_()
    return seen._replace(sensitivity=weighted_gradients(softmaxed(h), [h])[0])


def probe_of(seen: Activations) -> Tensor:
    """The probe's direction: where the shift goes if the output is ignored."""
    return DualSteering(8, shrinkage=1e9).fit(seen).vector.double()


def test_the_outer_products_are_the_covariance_of_the_head_under_each_softmax() -> None:
    seen = seen_through_the_head()
    assert seen.sensitivity is not None
    p = softmaxed(seen.h).exp()
    mean = p @ HEAD
    expected = torch.einsum("nv,vi,vj->nij", p, HEAD, HEAD) - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    torch.testing.assert_close(seen.sensitivity.mT @ seen.sensitivity, expected, rtol=1e-8, atol=1e-10)


def test_no_shift_that_raises_the_probe_as_much_changes_the_output_less() -> None:
    seen = seen_through_the_head()
    v, w = DualSteering(8, shrinkage=1e-6).fit(seen).vector.double(), probe_of(seen)
    g = torch.Generator().manual_seed(0)
    others = [MeanDifference(8).fit(seen).vector.double(), w, *torch.randn(20, 8, dtype=torch.float64, generator=g)]
    before = softmaxed(seen.h)
    small = 1e-3
    cost = kl(before, softmaxed(seen.h + small * v)).mean()
    for other in others:
        equal = other * (w @ v) / (w @ other)
        assert kl(before, softmaxed(seen.h + small * equal)).mean() >= cost * (1 - 1e-3)
    assert kl(before, softmaxed(seen.h + small * others[0])).mean() > 1.2 * cost


def test_the_mean_prediction_in_the_heads_space_moves_along_the_probe() -> None:
    """The dual coordinates, means of the head's rows under the softmax, move along w: the source's theorem."""
    seen = seen_through_the_head()
    v, w = DualSteering(8, shrinkage=1e-8).fit(seen).vector.double(), probe_of(seen)
    moved = ((softmaxed(seen.h + 1e-4 * v).exp() - softmaxed(seen.h).exp()) @ HEAD).mean(0)
    assert torch.cosine_similarity(moved, w, dim=0) > 0.9999
    assert torch.cosine_similarity(v, w, dim=0) < 0.95


def test_strength_one_raises_the_probe_as_the_mean_difference_does() -> None:
    seen = seen_through_the_head()
    w, difference = probe_of(seen), MeanDifference(8).fit(seen).vector.double()
    for shrinkage in (1e-6, 0.01, 1.0):
        vector = DualSteering(8, shrinkage=shrinkage).fit(seen).vector.double()
        torch.testing.assert_close(w @ vector, w @ difference, rtol=1e-4, atol=1e-6)


def test_what_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the output's gradients"):
        DualSteering(8).fit(rows()._replace(sensitivity=None))
    with pytest.raises(ValueError, match="shrinkage is above 0"):
        DualSteering(8, shrinkage=0.0)


# ---- what networks say


@pytest.mark.parametrize("part", ["block", "heads"])
@torch.no_grad()
def test_a_decoder_says_how_its_next_token_depends_on_a_shift_of_all_tokens(part: str) -> None:
    """Half the quadratic form is the KL divergence of the likeliest tokens' softmax, measured by the model itself."""
    llm = LLM("llama", [1, 2], part).adopt(decoder("llama").double(), letters())  # type: ignore[arg-type]
    sensitivity = llm.sensitivity(TEXTS, prompts=True)
    u = 1e-3 * torch.randn(32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for site in llm.sites:
        assert sensitivity[site].shape == (3, 16, 32)
        for text, g in zip(TEXTS, sensitivity[site], strict=True):
            ids = torch.tensor([llm.tokenizer(text.prompt)["input_ids"]])
            plain = llm.model(ids).logits[0, -1]
            with edit(llm.model, {site: lambda h: h + u}):
                steered = llm.model(ids).logits[0, -1]
            likely = plain.topk(16).indices
            expected = kl(plain[likely].log_softmax(-1), steered[likely].log_softmax(-1))
            torch.testing.assert_close((g @ u).square().sum() / 2, expected, rtol=0.02, atol=1e-12)


def test_a_decoder_says_the_same_in_inference_mode_and_text_by_text() -> None:
    llm = LLM("llama", [1, 2]).adopt(decoder("llama"), letters())
    together = llm.sensitivity(TEXTS, prompts=True)
    with torch.inference_mode():
        alone = [llm.sensitivity([text], prompts=True) for text in TEXTS]
    for site in llm.sites:
        alone_shifts = torch.cat([part[site] for part in alone])
        torch.testing.assert_close(
            together[site].mT @ together[site], alone_shifts.mT @ alone_shifts, rtol=1e-3, atol=1e-4
        )


def test_where_the_output_is_and_which_tokens_are_shifted_follows_the_fit() -> None:
    """Prompts end before their answer, texts after it; and a shift of generated tokens is one of the answer alone."""
    llm = LLM("llama", 1, positions=GeneratedTokens()).adopt(decoder("llama"), letters())
    (site,) = llm.sites
    text = MultipleChoice("hello", (" abc", " de"))
    (sensitivity,) = llm.sensitivity([text])[site]
    ids = torch.tensor([llm.tokenizer("hello abc")["input_ids"]])
    shift = torch.zeros(1, 32, requires_grad=True)
    with edit(llm.model, {site: lambda h: torch.cat([h[:, :-4], h[:, -4:] + shift], 1)}):
        logp = llm.model(ids).logits[:, -1].topk(16).values.log_softmax(-1)
    expected = weighted_gradients(logp, [shift])[0][0]
    torch.testing.assert_close(sensitivity.mT @ sensitivity, expected.mT @ expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="GeneratedTokens steers no token of a text"):
        llm.sensitivity([text], prompts=True)


def test_the_toy_network_says_how_all_its_answers_depend_on_a_shift(toy_backbone: ToyBackbone) -> None:
    network = toy_backbone.network
    assert network is not None
    x, (site,) = torch.randn(6, network.inputs, generator=torch.Generator().manual_seed(0)), toy_backbone.sites
    with torch.inference_mode():
        g = toy_backbone.sensitivity(x)[site].double()
    network.double()
    u = 1e-3 * torch.randn(g.shape[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plain = network(x.double()).log_softmax(-1)
    with edit(network, {site: lambda h: h + u}):
        expected = kl(plain, network(x.double()).log_softmax(-1)).sum(-1)  # over attributes
    torch.testing.assert_close((g @ u).square().sum(-1) / 2, expected, rtol=0.05, atol=1e-10)
