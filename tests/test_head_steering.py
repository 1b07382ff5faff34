"""Head steering: the place before the attention's last linear layer in every family, and the heads that are chosen."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import laws
import pytest
import torch
from conftest import rows
from decoders import FAMILIES, decoder, letters
from torch import Tensor
from windowed import WIDE

import lightning_steer as ls
from lightning_steer import vectors
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.behaviours.pairs import Pairs
from lightning_steer.hooks import capture, edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.sites import heads, site_of
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import DualSteering, HeadSteering, MeanDifference, SteeringMethod
from lightning_steer.records import Activations
from lightning_steer.vectors import lm_eval
from lightning_steer.workflows.fit import backbone
from lightning_steer.workflows.search import Search

PAIRS = [
    ls.ContrastPair(f"The {n} {who} are", "kind", "rude")
    for n in ("hill", "mill", "town")
    for who in ("bakers", "potters")
]
TEXTS = [
    "In the autumn, the grey cat watched under the tree.",
    "In the summer, the brown horse played along the fence.",
]
IDS = torch.randint(4, 30, (3, 7), generator=torch.Generator().manual_seed(0))
MORE: dict[str, dict[str, Any]] = {
    "phi3": {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 4, "expansion_ratio": 2, "max_seq_len": 512},
    "qwen3": {**WIDE, "head_dim": 16},  # twice as wide as the stream
}


def llm_of(family: str, **settings: Any) -> LLM:
    model = decoder(family, **MORE.get(family, {}))
    return LLM(family, **{"layers": [1, 2], "part": "heads", **settings}).adopt(model, letters())


@pytest.mark.parametrize("family", sorted({*FAMILIES, *MORE}))
@torch.no_grad()
def test_a_shift_of_the_heads_is_the_projected_shift_of_the_attention(family: str) -> None:
    llm = llm_of(family, layers=2)
    (site,) = llm.sites
    projection = llm.model.get_submodule(site.removesuffix(":input"))
    transposed = projection.weight.T if family == "gpt2" else projection.weight  # GPT-2's own linear layer is [in, out]
    assert llm.width(site) == transposed.shape[1] == 4 * (16 if family == "qwen3" else 8)
    assert llm.heads(site) == 4
    v = torch.linspace(-1, 1, llm.width(site))
    outputs: list[Tensor] = []
    attention = site_of(llm.model, 2, "attention")
    inside = site.removesuffix(":input")
    for edits in ({}, {site: lambda h: h + v}, {inside: lambda h: h + transposed @ v}):
        with edit(llm.model, edits), capture(llm.model, [attention]) as seen:
            outputs += [llm.model(IDS).logits, seen[attention]]
    plain, before, steered, after, projected, _ = outputs
    assert (steered - plain).abs().max() > 0.05
    torch.testing.assert_close(steered, projected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after - before, (transposed @ v).expand_as(before), rtol=1e-4, atol=1e-4)
    with edit(llm.model, {site: lambda h: h + 0.0 * v}):
        assert torch.equal(llm.model(IDS).logits, plain)


@torch.no_grad()
def test_a_site_reads_what_it_steers_and_its_heads_lie_side_by_side() -> None:
    """The attention's output is the sum over heads of each head's part through its own columns of the projection."""
    llm = llm_of("qwen3", layers=2)
    (site,) = llm.sites
    attention = site_of(llm.model, 2, "attention")
    with capture(llm.model, [site, attention]) as seen:
        llm.model(IDS)
    weight = llm.model.get_submodule(site.removesuffix(":input")).weight
    by_head = [seen[site][..., 16 * k : 16 * k + 16] @ weight[:, 16 * k : 16 * k + 16].T for k in range(4)]
    torch.testing.assert_close(torch.stack(by_head).sum(0), seen[attention], rtol=1e-4, atol=1e-4)
    read = llm.activations([MultipleChoice("abc")])
    assert {name: h.shape for name, h in read.items()} == {site: (1, 64)}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen3"])
def test_a_sweep_of_the_heads_is_each_strength_by_itself_and_generation_is_steered(family: str) -> None:
    llm = llm_of(family)
    v, strengths = torch.randn(llm.width(llm.sites[0])), torch.tensor([0.0, 1.0, -2.0])
    question = [MultipleChoice("hello there", (" abc", " de"))]
    sweep = {site: lambda h: h + strengths.reshape(-1, 1, 1, 1) * v for site in llm.sites}
    together = llm.scores(question, sweep, 3)
    for strength, scores in zip(strengths.tolist(), together, strict=True):
        single = llm.scores(question, {site: lambda h, s=strength: h + s * v for site in llm.sites})[0]
        torch.testing.assert_close(scores, single, rtol=1e-5, atol=1e-5)
    assert (together[1] - together[0]).abs().max() > 0.05
    shifts = [{site: lambda h, s=s: h + s * v for site in llm.sites} for s in (0.0, 5.0)]
    plain, zero, steered = (llm.generate("hello", 8, edits=edits) for edits in (None, *shifts))
    assert plain == zero != steered


def test_a_vector_of_heads_is_saved_and_goes_back_to_its_place(tmp_path: Path) -> None:
    llm = llm_of("qwen3", layers=2)
    (site,) = llm.sites
    method = HeadSteering(64).fit(rows(d=64)._replace(heads=llm.heads(site)))
    vector = vectors.load(vectors.save(tmp_path / "v.safetensors", vectors.of(llm, {site: method}, 2.0)))
    assert vector.card.sites == [vectors.Site(2, "heads", site, 64)]
    with edit(llm.model, {site: lambda h: method(h, 2.0)}):
        expected = llm.model(IDS).logits
    nameless = vector._replace(card=vector.card._replace(sites=[vector.card.sites[0]._replace(module="")]))
    with vectors.edit(llm, nameless):
        assert torch.equal(llm.model(IDS).logits, expected)
    with pytest.raises(ValueError, match="heads are steered at an input"):
        lm_eval.encode(vector, 1.0)
    with (
        pytest.raises(ValueError, match="width 64 at block 2"),
        vectors.edit(llm_of("llama"), vector, other_model=True),
    ):
        pass


def test_heads_that_cannot_be_told_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_steer.lm.sites.PROJECTIONS", ("no_such_name",))
    with pytest.raises(ValueError, match="has 0 layers called no_such_name, not one"):
        llm_of("llama")


def test_a_number_of_heads_that_does_not_divide_the_row_is_refused() -> None:
    model = decoder("llama")
    model.config.num_attention_heads = 5
    with pytest.raises(ValueError, match="is 32 wide, which 5 heads do not divide"):
        LLM("llama", 1, "heads").adopt(model, letters())
    with pytest.raises(ValueError, match="5 heads do not divide a row of width 8"):
        HeadSteering(8).fit(rows()._replace(heads=5))


def test_other_places_are_one_head() -> None:
    llm = LLM("llama", 1).adopt(decoder("llama"), letters())
    assert [heads(llm.model, site_of(llm.model, 1, part)) for part in ("block", "attention", "mlp", "heads")] == [
        1,
        1,
        1,
        4,
    ]


@pytest.mark.parametrize(("part", "method"), [("heads", partial(HeadSteering, top=1)), ("block", DualSteering)])
def test_a_run_and_a_search_give_the_method_what_the_network_knows(
    part: Any, method: Callable[[int], SteeringMethod], pocket_decoder: Path
) -> None:
    """The number of heads, which nobody names; the gradients of the output, which only some methods ask for."""
    llm = LLM(str(pocket_decoder), [1, 2], part)
    search = Search(
        backbone(llm, None), BehaviourDataModule(Pairs(PAIRS), fit_share=0.4, select_share=0.3), method, TEXTS
    )
    for method_found in (*ls.fit(llm, PAIRS, method=method).maps, *search.methods.values()):
        heads_shifted = method_found.get_buffer("vector").unflatten(0, (2, 8)).norm(dim=1) > 0
        assert heads_shifted.sum() == (1 if part == "heads" else 2)


# ---- the method


def telling(strong: int, n: int = 200) -> Activations:
    """Four heads of width 4: all means differ by 1, and head ``strong`` has the least noise."""
    g = torch.Generator().manual_seed(0)
    noise = torch.tensor([3.0 if k == strong else 10.0 for k in range(4)]).repeat_interleave(4)
    error = torch.cat([torch.ones(n), torch.zeros(n)])
    h = noise * torch.randn(2 * n, 16, generator=g) / 4 + torch.where(error < 0.5, 1.0, 0.0).unsqueeze(1)
    return Activations(h, error, (error < 0.5).long().unsqueeze(1), False, 4)


@pytest.mark.parametrize("strong", range(4))
def test_the_telling_head_is_shifted_by_its_standard_deviation_along_its_mean_difference(strong: int) -> None:
    seen = telling(strong)
    vector = HeadSteering(16, top=1).fit(seen).vector.unflatten(0, (4, 4))
    assert vector.norm(dim=1).nonzero().flatten().tolist() == [strong]
    difference = MeanDifference(16).fit(seen).vector.unflatten(0, (4, 4))[strong]
    own = seen.h.unflatten(1, (4, 4))[:, strong] @ (difference / difference.norm())
    torch.testing.assert_close(
        vector[strong], difference / difference.norm() * own.std(correction=0), rtol=1e-4, atol=1e-5
    )


def test_more_heads_than_there_are_is_all_of_them() -> None:
    assert (HeadSteering(16, top=9).fit(telling(0)).vector.unflatten(0, (4, 4)).norm(dim=1) > 0).all()
    with pytest.raises(ValueError, match="top is the number of heads"):
        HeadSteering(16, top=0)


@pytest.mark.parametrize("law", [law for law in laws.LAWS if "stack" not in law.__name__], ids=lambda law: law.__name__)
def test_law_with_two_heads(law: Any) -> None:
    torch.manual_seed(0)
    law(partial(HeadSteering, top=1), rows()._replace(heads=2))


def test_heads_are_chosen_in_a_stack_as_alone() -> None:
    alone = [telling(strong) for strong in (1, 3)]
    stacked = alone[0]._replace(
        h=torch.stack([seen.h for seen in alone]), value=torch.stack([seen.value for seen in alone])
    )
    vectors_alone = torch.stack([HeadSteering(16, top=1).fit(seen).vector for seen in alone])
    torch.testing.assert_close(HeadSteering(16, top=1).fit(stacked).vector, vectors_alone)
