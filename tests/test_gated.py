"""Gates: the method or the identity, decided once for a row at the last token of its prompt, however it is read."""

import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import laws
import numpy as np
import pytest
import torch
from conftest import rows
from decoders import decoder, letters
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.stats import binom
from test_methods import SINGLE
from torch import Tensor

from lightning_steer import row_tokens, vectors
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import (
    AllTokens,
    GeneratedTokens,
    LastPromptToken,
    Positions,
    PromptTokens,
    TokensFrom,
)
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import Composed, Gated, Identity, MeanDifference, SteeringMethod
from lightning_steer.modules import fitted
from lightning_steer.modules.fit_data import no_rows
from lightning_steer.modules.gates import check
from lightning_steer.probes import Condition
from lightning_steer.records import Activations
from lightning_steer.runs.provenance import settings_of
from lightning_steer.runs.saving import restore
from lightning_steer.statistics import gates

PROMPTS = ["the cat sat", "a", "what is this: a longer one", "no dogs", "is it, or not?", "zebra"]
POSITIONS = (AllTokens(), PromptTokens(), LastPromptToken(), GeneratedTokens(), TokensFrom(-2), TokensFrom(1))


def bits(h: Tensor) -> Tensor:
    return h.contiguous().view(torch.int32 if h.dtype == torch.float32 else torch.int16)


@pytest.mark.parametrize("make", SINGLE.values(), ids=list(SINGLE))
def test_an_open_gate_is_the_method_and_a_closed_one_the_identity(make: Callable[[int], SteeringMethod]) -> None:
    torch.manual_seed(0)
    method = laws.trained(make, rows())
    condition = Condition(8)
    condition.fit(rows().negative, rows().positive).set_threshold(0.0)
    gated = Gated.around(method, condition)
    for dtype in (torch.float32, torch.bfloat16):
        h = torch.randn(3, 50, 8).to(dtype)
        h[0, 0, :2] = torch.tensor([0.0, -0.0])
        for strength in (0.3, 1.0, torch.tensor([0.2, 0.9, 0.5])):
            condition.set_threshold(-math.inf)
            assert torch.equal(bits(gated(h, strength)), bits(method(h, strength)))
            condition.set_threshold(math.inf)
            assert torch.equal(bits(gated(h, strength)), bits(h))


def test_rows_are_steered_where_the_score_passes() -> None:
    method = MeanDifference(8).fit(rows())
    condition, h = Condition(8), torch.randn(200, 8)
    scores = condition.fit(rows().negative, rows().positive).score(h)
    condition.set_threshold(scores.median())
    gated = Gated.around(method, condition)
    passes = scores > scores.median()
    assert 90 < int(passes.sum()) < 110
    assert torch.equal(gated(h, 2.0), torch.where(passes.unsqueeze(1), method(h, 2.0), h))


def test_the_condition_tells_the_rows_apart_and_was_not_calibrated_on_rows_that_it_was_fitted_to() -> None:
    seen = rows(n=400)
    gated = Gated(8, MeanDifference).fit(seen)
    (gate,) = gated.condition.gates
    assert gate.n == 200
    assert gate.bound <= 0.05
    assert gate.power.value > 0.8
    assert gated.condition.calibration.tolist() == pytest.approx([200, 200, gate.bound, *gate.power[:3]], rel=1e-6)
    noise = seen._replace(
        h=torch.randn(len(seen.h), 200)
    )  # nothing to tell apart: fitted rows seem to be, others are not
    open_share = Gated(200, MeanDifference, penalty=1e-6).fit(noise).condition.gates[0].power.value
    assert open_share < 0.2


def test_too_few_rows_steer_nothing() -> None:
    gated, h = Gated(8, MeanDifference).fit(rows(n=100)), torch.randn(500, 8)
    assert torch.equal(gated(h, 1.0), h)
    assert "50 rows that should be left alone are too few" in gated.condition.gates[0].reason
    assert "59 are needed" in gated.condition.gates[0].reason
    assert gated.condition.threshold.isfinite()


def test_no_rows_and_impossible_settings_are_refused() -> None:
    empty = Activations(torch.zeros(0, 8), torch.zeros(0), torch.zeros(0, 1).long(), False)
    learned = Gated(8, SINGLE["LearnedVector"])
    with pytest.raises(ValueError, match="not 0 and 0"):
        learned.fit(empty)
    with pytest.raises(ValueError, match=r"Gated holds LearnedVector, trained.*Gated\.around"):
        no_rows(learned)
    with pytest.raises(ValueError, match=r"Composed holds LoReFT, trained.*Composed\.of"):
        no_rows(Composed(8, [SINGLE["LoReFT"], Identity]))
    assert no_rows(Composed(8, [SINGLE["LoReFT"], SINGLE["LearnedVector"]])).h.shape == (0, 8)
    with pytest.raises(ValueError, match="no threshold"):
        Gated.around(MeanDifference(8).fit(rows()), Condition(8))
    for settings in ({"eta": 0.0}, {"delta": 1.0}, {"calibration_share": 1.0}, {"penalty": -1.0}):
        with pytest.raises(ValueError, match=r"between|must"):
            Gated(8, MeanDifference, **settings)  # type: ignore[arg-type]


# ---- in a language model


def model(positions: Positions | None = None, family: str = "llama", part: str = "block") -> LLM:
    return LLM("tiny", 1, positions=positions, part=part).adopt(decoder(family), letters())  # type: ignore[arg-type]


def half_open(llm: LLM, size: float = 1.0) -> tuple[Gated, list[bool]]:
    """A gate that opens for half of the prompts, and for which."""
    method = MeanDifference(32).fit(rows(d=32))
    method.vector = size * torch.randn(32, generator=torch.Generator().manual_seed(3))
    condition = Condition(32)
    condition.weight = torch.randn(32, generator=torch.Generator().manual_seed(4))
    scores = condition.score(llm.activations([MultipleChoice(text) for text in PROMPTS])[llm.sites[0]])
    condition.set_threshold(scores.sort().values[2:4].mean())
    return Gated.around(method, condition), (scores > condition.threshold).tolist()


def strengths(opened: list[bool], amount: float = 1.0) -> Tensor:
    return amount * torch.tensor(opened).float()


@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
@pytest.mark.parametrize("positions", POSITIONS, ids=lambda rule: type(rule).__name__)
def test_generation_is_steered_in_the_rows_that_the_prompt_opens(positions: Positions, use_cache: bool) -> None:
    llm = model(positions)
    gated, opened = half_open(llm)
    site = llm.sites[0]
    plain = vectors.of(llm, {site: gated.method}, 1.0)
    with vectors.edit(llm, plain, strengths(opened)):
        expected = llm.generate(PROMPTS, 7, use_cache=use_cache)
    assert sum(opened) == 3
    made = vectors.of(llm, {site: gated}, 1.0)
    with vectors.edit(llm, made):
        assert llm.generate(PROMPTS, 7, use_cache=use_cache) == expected
        assert [llm.generate(prompt, 7, use_cache=use_cache) for prompt in PROMPTS] == expected
    edits = {site: partial(gated, strength=1.0)}
    assert llm.generate(PROMPTS, 7, edits=edits, use_cache=use_cache) == expected
    assert llm.generate(PROMPTS[:4], 7, edits=edits, use_cache=use_cache) == expected[:4]  # another padding
    if isinstance(positions, AllTokens) and use_cache:
        passes = lambda h: gated.condition.score(h).unsqueeze(-1) > gated.condition.threshold  # noqa: E731
        by_token = lambda h: torch.where(passes(h), gated.method(h, 1.0), h)  # noqa: E731
        assert llm.generate(PROMPTS, 7, edits={site: by_token}) != expected  # the decision of the prompt does matter


@pytest.mark.parametrize("part", ["block", "mlp"])
@pytest.mark.parametrize("family", ["opt", "gpt2", "mixtral"])
def test_beams_and_families(family: str, part: str) -> None:
    llm = model(None, family, part)
    gated, opened = half_open(llm)
    with vectors.edit(llm, vectors.of(llm, {llm.sites[0]: gated.method}, 1.0), strengths(opened)):
        expected = llm.generate(PROMPTS, 5, num_beams=3) if (family, part) != ("opt", "mlp") else None
    with vectors.edit(llm, vectors.of(llm, {llm.sites[0]: gated}, 1.0)):
        together = llm.generate(PROMPTS, 5, num_beams=3)
        assert expected is None or together == expected
        assert [llm.generate(prompt, 5, num_beams=3) for prompt in PROMPTS] == together


@pytest.mark.parametrize("packs", [True, False])
def test_scores_and_drift_are_steered_in_the_rows_that_the_prompt_opens(packs: bool) -> None:
    llm = model()
    llm.packs = packs
    gated, opened = half_open(llm)
    questions = [MultipleChoice(prompt, (" abc", " de", "f")) for prompt in PROMPTS]
    edits = {llm.sites[0]: lambda h: gated(h, torch.tensor([1.0, 0.0, 2.0]))}
    scores = llm.scores(questions, edits, 3)
    alone = {llm.sites[0]: lambda h: gated.method(h, torch.tensor([1.0, 0.0, 2.0]))}
    expected = torch.where(torch.tensor(opened)[None, :, None], llm.scores(questions, alone, 3), llm.scores(questions))
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    assert (scores[0] - scores[1])[torch.tensor(opened)].abs().min() > 0
    kl = llm.drift(PROMPTS, {llm.sites[0]: partial(gated, strength=1.0)}).kl[0].nan_to_num().sum(1)
    assert (kl > 0).tolist() == opened


def test_a_prompt_in_pieces_is_refused_before_its_last_token() -> None:
    llm = model()
    gated, _ = half_open(llm)
    ids = torch.tensor([llm.prompts(["the cat sat"], 1)[0]])
    with vectors.edit(llm, vectors.of(llm, {llm.sites[0]: gated}, 1.0), prompt_lengths=torch.tensor([ids.shape[1]])):
        whole = llm.model(ids, use_cache=True)
        with pytest.raises(ValueError, match="last token of its prompt"):
            llm.model(ids[:, :4], use_cache=True)
    assert whole.logits.isfinite().all()


def test_all_tokens_are_steered_also_where_they_cannot_be_told_unless_a_gate_asks() -> None:
    llm = model()
    gated, _ = half_open(llm)
    ids = torch.tensor([llm.prompts(["the cat sat"], 1)[0]])
    mask = torch.zeros(1, 1, ids.shape[1], ids.shape[1]).masked_fill(
        torch.ones(ids.shape[1], ids.shape[1]).triu(1) > 0, -1e9
    )
    with llm.steered({llm.sites[0]: partial(gated.method, strength=1.0)}):
        assert llm.model(ids, attention_mask=mask).logits.isfinite().all()
    with llm.steered({llm.sites[0]: partial(gated, strength=1.0)}), pytest.raises(ValueError, match="attention mask"):
        llm.model(ids, attention_mask=mask)


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("positions", POSITIONS, ids=lambda rule: type(rule).__name__)
def test_scores_in_a_block_know_where_the_prompt_ends(positions: Positions, packs: bool) -> None:
    llm = model(positions)
    gated, _ = half_open(llm)
    llm.packs = packs
    questions = [MultipleChoice(prompt, (" abc", " de", "f")) for prompt in PROMPTS]
    for method in (gated, gated.method):
        edits = {llm.sites[0]: partial(method, strength=1.0)}
        expected, texts = llm.scores(questions, edits), llm.generate(PROMPTS, 4, edits=edits)
        with vectors.edit(llm, vectors.of(llm, {llm.sites[0]: method}, 1.0)):
            torch.testing.assert_close(llm.scores(questions), expected, rtol=1e-5, atol=1e-5)
            assert llm.generate(PROMPTS, 4) == texts


def test_each_cache_keeps_the_prompt_and_the_decision_of_its_rows() -> None:
    rule = TokensFrom(-1)
    llm = model(rule)
    gated, opened = half_open(llm)
    ids = [torch.tensor([llm.prompts([PROMPTS[opened.index(is_open)]], 1)[0]]) for is_open in (True, False)]
    with vectors.edit(llm, vectors.of(llm, {llm.sites[0]: gated}, 1.0)):
        alone = []
        for row in ids:
            cache = llm.model(row, use_cache=True).past_key_values
            alone.append(llm.model(torch.tensor([[7]]), past_key_values=cache).logits)
        caches = [llm.model(row, use_cache=True).past_key_values for row in ids]
        for cache, expected in zip(caches, alone, strict=True):  # the first is not of the latest prompt
            assert torch.equal(llm.model(torch.tensor([[7]]), past_key_values=cache).logits, expected)
    outside = llm.model(ids[0], use_cache=True).past_key_values
    with vectors.edit(llm, vectors.of(llm, {llm.sites[0]: gated}, 1.0)):
        llm.model(ids[1])
        with pytest.raises(ValueError, match="cache that was filled outside"):
            llm.model(torch.tensor([[7]]), past_key_values=outside)


def test_a_part_of_the_rows_is_refused() -> None:
    tokens = row_tokens.RowTokens(torch.arange(5).expand(4, 5), torch.full((4,), 5), {})
    with pytest.raises(ValueError, match=r"all \[4, 5\] tokens"):
        tokens.hold("", torch.ones(3, 5, dtype=torch.bool))


def test_a_gated_vector_comes_back_and_steers_the_same(tmp_path) -> None:
    llm = model()
    gated, _ = half_open(llm)
    made = vectors.of(llm, {llm.sites[0]: gated}, 1.0)
    loaded = vectors.load(vectors.save(tmp_path / "gated.safetensors", made))
    assert loaded.card.settings["method"] == {"name": "MeanDifference", "settings": {}}
    texts = []
    for vector in (made, loaded):
        with vector.applied_to(llm):
            texts.append(llm.generate(PROMPTS, 6))
    assert texts[0] == texts[1]


def test_a_calibration_is_read_under_its_former_name(tmp_path) -> None:
    gated = Gated(8, MeanDifference).fit(rows(n=400))
    state = {name.replace("calibration", "promise"): value for name, value in gated.state_dict().items()}
    assert "condition.promise" in state
    with pytest.warns(UserWarning, match="promise"):
        restored = restore(Gated(8, MeanDifference), state, "a checkpoint")
    assert torch.equal(restored.condition.calibration, gated.condition.calibration)
    site = vectors.Site(3, "block", "", 8)
    card = vectors.Card("Gated", settings_of(gated), [site], vectors.Strength(1.0, "multiples"), {"name": "AllTokens"})
    path = vectors.save(tmp_path / "new.safetensors", vectors.SteeringVector([gated], card))
    with safe_open(path, "pt") as file:
        tensors = {name.replace("calibration", "promise"): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        save_file(tensors, tmp_path / "old.safetensors", file.metadata())
    with pytest.warns(UserWarning, match="promise"):
        read = vectors.load(tmp_path / "old.safetensors").maps[0]
    assert torch.equal(read.condition.calibration, gated.condition.calibration)  # type: ignore[union-attr]


def test_a_gate_around_a_trained_vector_is_read_for_an_experiment(tmp_path) -> None:
    llm, learned = model(), laws.trained(SINGLE["LearnedVector"], rows(d=32))
    condition = half_open(llm)[0].condition
    path = vectors.save(
        tmp_path / "g.safetensors", vectors.of(llm, {llm.sites[0]: Gated.around(learned, condition)}, 1.0)
    )
    (method,) = fitted.load(path, partial(Gated, method=SINGLE["LearnedVector"]), {llm.sites[0]: 32}).values()
    h = torch.randn(50, 32)
    assert torch.equal(method(h, 2.0), torch.where(condition(h).unsqueeze(1), learned(h, 2.0), h))


def test_rows_that_are_read_elsewhere_than_the_gate_decides_are_refused() -> None:
    llm, methods = model(), {"site": Gated(32, MeanDifference)}
    check(methods, llm, SimpleNamespace(pair=None))  # type: ignore[arg-type]
    check({"site": MeanDifference(32)}, llm, SimpleNamespace(pair=([], [])))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="differ after it"):
        check(methods, llm, SimpleNamespace(pair=([], [])))  # type: ignore[arg-type]
    llm.read_positions = GeneratedTokens()
    with pytest.raises(ValueError, match="read at GeneratedTokens"):
        check(methods, llm, SimpleNamespace(pair=None))  # type: ignore[arg-type]


# ---- the bound


@pytest.mark.parametrize(
    ("n", "eta", "delta"), [(59, 0.05, 0.05), (60, 0.1, 0.01), (250, 0.05, 0.05), (999, 0.01, 0.1)]
)
def test_as_many_wrong_gates_are_allowed_as_the_binomial_law_permits(n: int, eta: float, delta: float) -> None:
    count = gates.allowed(n, eta, delta)
    assert count is not None
    assert binom.cdf(count, n, eta) <= delta < binom.cdf(count + 1, n, eta)
    assert gates.allowed(gates.fewest(eta, delta) - 1, eta, delta) is None
    assert gates.allowed(gates.fewest(eta, delta), eta, delta) == 0


@pytest.mark.parametrize("law", ["uniform", "ties", "clusters"])
def test_more_wrong_gates_than_promised_are_as_rare_as_promised(law: str) -> None:
    random, eta, delta, n, sets = np.random.default_rng(5), 0.1, 0.1, 120, 4000
    scores = random.random((n, sets))
    cluster, true = None, lambda t: 1 - t
    if law == "ties":
        scores, true = np.floor(8 * scores), lambda t: np.clip(7 - t, 0, 8) / 8
    if law == "clusters":
        cluster = np.repeat(np.arange(40), 3)  # all alike in a cluster
        scores = np.repeat(scores[:40], 3, 0)
    limits = gates.thresholds(scores, eta, delta, cluster)
    broken = (true(limits) > eta).mean()
    assert broken <= delta + 0.015
    if law == "uniform":  # and not needlessly rare: the exact chance is that of the binomial sum
        assert abs(broken - binom.cdf(gates.allowed(n, eta, delta), n, eta)) < 0.015
    if law == "clusters":  # rows of a cluster are no independent rows
        assert (true(gates.thresholds(scores, eta, delta)) > eta).mean() > delta + 0.015


def test_power_has_the_exact_interval_of_its_share() -> None:
    gate = gates.calibrate(np.arange(50) - 4.5, np.linspace(-100, 0, 100), 0.1, 0.05)
    steered = int((np.arange(50) - 4.5 > gate.threshold).sum())
    assert gate.power.value == steered / 50
    assert gate.power.low < gate.power.value < gate.power.high <= 1
    with pytest.raises(ValueError, match="NaN or infinite"):
        gates.thresholds([np.nan, 1.0], 0.1, 0.1)
