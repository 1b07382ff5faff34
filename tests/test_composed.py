"""Compositions: the sum of one is the one, parts are added once, and an interaction is what does not add up."""

import math
from collections.abc import Callable
from pathlib import Path

import laws
import numpy as np
import pytest
import torch
from conftest import rows
from test_gated import PROMPTS, bits, model
from test_methods import SINGLE
from torch import Tensor

from lightning_steer import vectors
from lightning_steer.chat.session import Session
from lightning_steer.data.behaviours.pairs import ContrastPair
from lightning_steer.methods import MERA, Composed, Identity, MeanDifference, SteeringMethod
from lightning_steer.modules import interventions
from lightning_steer.statistics.interactions import interaction, of_rows
from lightning_steer.workflows.interaction import interactions


@pytest.mark.parametrize("make", SINGLE.values(), ids=list(SINGLE))
def test_the_sum_of_one_is_the_one(make: Callable[[int], SteeringMethod]) -> None:
    torch.manual_seed(0)
    method = laws.trained(make, rows())
    for orthogonal in (False, True):
        alone = Composed.of([method], orthogonal=orthogonal)
        for dtype in (torch.float32, torch.bfloat16):
            h = torch.randn(3, 20, 8).to(dtype)
            for strength in (0.3, 1.0, torch.tensor([0.2, 0.9, 0.5])):
                assert torch.equal(bits(alone(h, strength)), bits(method(h, strength)))


def added_vector(*numbers: float) -> MeanDifference:
    method = MeanDifference(len(numbers))
    method.vector, method.fitted = torch.tensor(numbers), True
    return method


def test_shifts_are_added_and_what_they_share_once_if_asked() -> None:
    a, b, h = added_vector(3.0, 0.0, 0.0), added_vector(2.0, 4.0, 0.0), torch.randn(5, 3)
    torch.testing.assert_close(Composed.of([a, b])(h, 2.0) - h, torch.tensor([[10.0, 8.0, 0.0]]).expand(5, 3))
    apart = Composed.of([a, b], orthogonal=True)(h, 2.0) - h
    torch.testing.assert_close(apart, torch.tensor([[6.0, 8.0, 0.0]]).expand(5, 3))
    twice = Composed.of([a, a, Identity(3).fit(rows(d=3))], orthogonal=True)
    torch.testing.assert_close(twice(h, 1.0), a(h, 1.0))


def test_every_part_is_given_its_own_strength() -> None:
    seen, h = rows(), torch.randn(9, 8)
    mera, mean = MERA(8).fit(seen), MeanDifference(8).fit(seen)
    both = Composed.of([mera, mean], strengths=[0.01, 3.0])
    torch.testing.assert_close(both(h, 1.0), h + mera.shift(h, 0.01) + mean.shift(h, 3.0))
    assert torch.equal(both(h, 0.0), h)
    with pytest.raises(ValueError, match="MERA at 1, MeanDifference at 0"):
        Composed(8, [MERA, MeanDifference])
    with pytest.raises(ValueError, match=r"each of 2, not \[1"):
        Composed(8, [MERA, MeanDifference], [1.0])
    with pytest.raises(ValueError, match="at least one method"):
        Composed(8, [])


def test_parts_alone_and_together_are_interventions() -> None:
    a, b, h = added_vector(3.0, 0.0), added_vector(0.0, 4.0), torch.randn(1, 5, 2)
    parts = interventions.parts({"site": Composed.of([a, b], strengths=[2.0, 1.0])}, 0.5)
    assert [part.name for part in parts] == ["part_1", "part_2"]
    torch.testing.assert_close(parts[0].function("site", h) - h, torch.tensor([3.0, 0.0]).expand(1, 5, 2))
    torch.testing.assert_close(parts[1].function("site", h) - h, torch.tensor([0.0, 2.0]).expand(1, 5, 2))
    assert not interventions.parts({"site": a}, 1.0)
    assert not interventions.parts({"site": Composed.of([a])}, 1.0)


# ---- several vectors


def constant(seed: int, layer: int = 1) -> vectors.SteeringVector:
    llm = model()
    method = MeanDifference(32).fit(rows(d=32))
    method.vector = torch.randn(32, generator=torch.Generator().manual_seed(seed))
    made = vectors.of(llm, {llm.sites[0]: method}, 1.0)
    site = made.card.sites[0]._replace(layer=layer, module=llm.site(layer))
    return made._replace(card=made.card._replace(sites=[site]))


def logits(network: torch.nn.Module) -> Tensor:
    return network(torch.tensor([[1, 5, 9, 12, 7], [1, 20, 21, 4, 8]])).logits


def test_several_vectors_add_up_at_one_site_and_act_each_at_its_own() -> None:
    llm, (a, b, c) = model(), (constant(1), constant(2), constant(3, 2))
    total = a._replace(maps=[Composed.of([*a.maps, *b.maps], strengths=[1.0, 2.0])])  # type: ignore[list-item]
    with vectors.edit(llm, total, 1.0):
        expected = logits(llm.model)
    with vectors.edit(llm, [a, b], [1.0, 2.0]):
        torch.testing.assert_close(logits(llm.model), expected, rtol=1e-5, atol=1e-5)
        texts = llm.generate(PROMPTS, 5)
    with vectors.edit(llm, total, 1.0):
        assert llm.generate(PROMPTS, 5) == texts
    with vectors.edit(llm, a), vectors.edit(llm, c):
        expected = logits(llm.model)
    with vectors.edit(llm, [a, c]):
        assert torch.equal(logits(llm.model), expected)
    with vectors.edit(llm, a):
        expected = logits(llm.model)
    with vectors.edit(llm, [a]):  # the sum of one is the one
        assert torch.equal(logits(llm.model), expected)


def test_strengths_that_are_not_one_for_each_vector_are_refused() -> None:
    llm, a, b = model(), constant(1), constant(2)
    for several, strength, message in (
        ([a, b], 1.0, "a list of strengths"),
        ([a, b], [1.0], "2 vectors take as many strengths, not 1"),
        ([], None, "no vector"),
    ):
        with pytest.raises(ValueError, match=message), vectors.edit(llm, several, strength):  # type: ignore[arg-type]
            raise AssertionError("steered")


def test_a_chat_has_further_vectors_beside_the_one_whose_strength_varies() -> None:
    llm, a, b = model(), constant(1), constant(2)
    answers = Session(llm, a, [0.0, 1.0], 5, beside=[b]).ask("the cat sat")
    for strength, answer in zip((0.0, 1.0), answers, strict=True):
        with vectors.edit(llm, [a, b], [strength, 1.0]):
            assert llm.generate("the cat sat", 5) == answer
    assert answers != Session(llm, a, [0.0, 1.0], 5).ask("the cat sat")


# ---- interactions


def test_the_interaction_is_what_the_single_effects_do_not_explain() -> None:
    random = np.random.default_rng(0)
    plain, a, b = random.random((3, 40))
    assert of_rows(plain, [plain + a, plain + b], plain + a + b) == pytest.approx(np.zeros((40, 1)))
    three = of_rows(plain, [plain + a, plain + b, plain + 1], plain + a + b + 1 - a * b)
    assert three[:, 0] == pytest.approx(-a * b)
    (estimate,) = interaction(plain, [plain + a, plain + b], plain + a + b - 0.5 - 0.1 * a)
    assert estimate.low < estimate.value < estimate.high < 0
    with pytest.raises(ValueError, match="at least 2"):
        interaction(plain, [plain], plain)
    with pytest.raises(ValueError, match="same rows"):
        interaction(plain, [plain, plain[:3]], plain)


def test_bounded_outcomes_reach_as_far_as_they_can() -> None:
    (extreme,) = interaction(np.ones(30), [np.zeros(30), np.zeros(30)], np.ones(30), 0, 1)
    assert extreme.value == 2
    assert extreme.high == 2


def test_interactions_of_vectors_are_those_of_hand_made_edits() -> None:
    llm, a, b = model(), constant(1), constant(2)
    pairs = [ContrastPair(prompt, "abc", "xyz") for prompt in PROMPTS * 3]
    result = interactions(llm, [a, b], {"letters": pairs}, [1.0, 0.5])["letters"]
    questions = [(p.prompt, (" abc", " xyz")) for p in pairs]
    from lightning_steer.lm.tokens import MultipleChoice

    def margin(*vectors_with: tuple[vectors.SteeringVector, float]) -> Tensor:
        shift = sum((amount * v.maps[0].vector for v, amount in vectors_with), torch.zeros(32))  # type: ignore[operator]
        llm.normalize = "tokens"
        scores = llm.scores([MultipleChoice(*q) for q in questions], {llm.sites[0]: lambda h: h + shift})[0].double()
        return scores[:, 0] - scores[:, 1]

    plain, with_a, two, both = margin(), margin((a, 1.0)), margin((b, 0.5)), margin((a, 1.0), (b, 0.5))
    assert result.interaction.value == pytest.approx(float((both - with_a - two + plain).mean()), abs=1e-5)
    assert result.together.value == pytest.approx(float((both - plain).mean()), abs=1e-5)
    assert result.interaction.clusters == len(PROMPTS) or result.interaction.how.startswith("none")


def test_multiples_stay_within_the_range_of_every_part() -> None:
    both = Composed(8, [MERA, MeanDifference], strengths=[0.1, 1.0])
    assert both.strength_range == pytest.approx((0.0, 1 / 0.9))
    assert both.default_strengths == (0.25, 0.5, 0.75, 1.0)
    assert Composed(8, [MeanDifference, Identity], strengths=[-2.0, 0.0]).strength_range == (-math.inf, math.inf)


def test_one_method_at_two_places_is_saved(tmp_path: Path) -> None:
    llm = model()
    mean = laws.trained(MeanDifference, rows(d=32))
    made = vectors.of(llm, {llm.sites[0]: Composed.of([mean, mean])}, 1.0)
    (loaded,) = vectors.load(vectors.save(tmp_path / "twice.safetensors", made)).maps
    h = torch.randn(5, 32)
    assert torch.equal(loaded(h, 1.0), mean(h, 2.0))
