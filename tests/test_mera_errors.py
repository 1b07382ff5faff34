"""The thirteen errors of the release that MERA was published with: each is planted, and caught.

1 units mixed, 4 wrong direction, 11 no intercept: test_mera_methods.
8 contiguous splits, 12 last sub-token: test_mera_data. The others: here.
"""

import numpy as np
import pytest
import torch
from decoders import decoder, letters

from lightning_steer.data.mera.generated_answers import Answered, answer, first_label
from lightning_steer.hooks import capture, edit
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import LastPromptToken, TokensFrom
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import MERA
from lightning_steer.probes.moments import Moments
from lightning_steer.probes.probe_selection import select
from lightning_steer.records import Activations
from lightning_steer.statistics.certificates import certify
from lightning_steer.studies.mera.families import families

QUESTIONS = [MultipleChoice(prompt, ("a", "b", "c")) for prompt in ("hello wor", "a longer text th", "fox", "abcabcab")]


@pytest.fixture(scope="module")
def llm():
    return LLM("tiny", layers=[0, 1, 2, 3], positions=LastPromptToken()).adopt(decoder("llama"), letters())


# ---- 2: logits at position i predict token i + 1


def reads_where_the_answer_is_predicted(llm, h) -> None:
    """What is read at the last layer, through norm and head, must give the scores of the labels."""
    logits = llm.logits(llm.model.model.norm(h)).log_softmax(-1)
    ids = llm.tokenizer.convert_tokens_to_ids(["a", "b", "c"])
    torch.testing.assert_close(logits[:, ids], llm.scores(QUESTIONS)[0], rtol=1e-4, atol=1e-4)


def test_activations_are_those_that_predict_the_answer(llm):
    reads_where_the_answer_is_predicted(llm, llm.observe(QUESTIONS)[1]["model.layers.3"])


def test_one_token_too_early_or_too_late_is_caught(llm):
    llm.read_positions = TokensFrom(-2)
    early = llm.observe(QUESTIONS)[1]["model.layers.3"]
    llm.read_positions = LastPromptToken()
    late = llm.activations(QUESTIONS)["model.layers.3"]  # of the prompt and its first option, as one text
    for h in (early, late):
        with pytest.raises(AssertionError):
            reads_where_the_answer_is_predicted(llm, h)


# ---- 3: who writes no label is wrong


def unparseable_is_wrong(grade) -> None:
    answered = Answered(QUESTIONS, torch.tensor([0, -1, 2, -1]), [""] * 4)
    error = grade(answered, torch.tensor([0.2, 0.3, 0.9, 0.0], dtype=torch.float64))
    assert error.tolist() == [0.2, 1.0, 0.9, 1.0]


def test_an_answer_without_a_label_has_error_one():
    unparseable_is_wrong(lambda answered, error: answered.error(error))


def test_error_nothing_for_no_label_is_caught():
    with pytest.raises(AssertionError):
        unparseable_is_wrong(lambda answered, error: torch.where(answered.parsed, error, 0.0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" ham.", (0, 1)),
        ("I think Ham or spam", (1, 8)),
        ("spammer says spam", (2, 13)),
        ("", (-1, 0)),
        ("hams", (-1, 0)),
        ("not spam today", (3, 0)),
    ],
)
def test_the_first_label_is_found_as_a_word_of_its_own(text, expected):
    assert first_label(text, [" ham", " Ham", " spam", " not spam"]) == expected


def test_the_label_is_graded_where_it_was_written(llm):
    """Greedy text up to the label joins the prompt; the label found there is then the most likely of all tokens."""
    questions = [MultipleChoice(q.prompt, tuple("abcdefghijklmnopqrstuvwxyz?")) for q in QUESTIONS]
    answered = answer(llm, questions, max_new_tokens=30)
    whole = llm.generate([q.prompt for q in questions], max_new_tokens=30)
    for i, question in enumerate(questions):
        assert whole[i].startswith(answered.text[i])
        if answered.option[i] < 0:
            assert answered.questions[i] == question
            continue
        label = question.choices[int(answered.option[i])]
        assert question.prompt + whole[i][: first_label(whole[i], question.choices)[1]].rstrip() == (
            answered.questions[i].prompt
        )
        if (
            answered.questions[i].prompt + label
            == (question.prompt + whole[i])[: len(answered.questions[i].prompt) + 1]
        ):
            assert llm.scores([answered.questions[i]])[0, 0].argmax() == answered.option[i]
    assert answered.parsed.any()
    short = answer(llm, questions, max_new_tokens=1)
    assert all(len(a) <= len(b) for a, b in zip(short.text, answered.text, strict=True))


def test_prompts_in_a_chat_template_are_refused(llm):
    llm.chat = True
    try:
        with pytest.raises(ValueError, match="continues plain prompts"):
            answer(llm, QUESTIONS)
    finally:
        llm.chat = False


# ---- 5 and 6: each method of the study has weights of its own


def graded(n=300, d=32, layers=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    h = torch.randn(layers, n, d, generator=g)
    error = (h[1] @ torch.randn(d, generator=g) / 2 + 0.3 * torch.randn(n, generator=g)).sigmoid()
    return h, error


def selection_of(h, error, folds=5):
    target = error.double().logit()
    return select(Moments.like(h, target, folds).add(h, target, torch.arange(h.shape[1]) % folds))


def weights_of_their_own(every) -> None:
    shifts = {}
    h, _ = graded()
    for family in every:
        (layer, method), *_ = family.at(0).items()
        shifts[family.name] = method(h[layer], 0.05 if method.identity_strength == 1 else 1.0) - h[layer]
    names = [
        name for name in shifts if "paper's thresholds" not in name and "layer" not in name and "probe" not in name
    ]
    for i, a in enumerate(names):
        for b in names[:i]:
            assert not torch.allclose(shifts[a], shifts[b], rtol=1e-3, atol=1e-6), (a, b)


def test_every_method_of_the_study_has_weights_of_its_own():
    h, error = graded()
    weights_of_their_own(families(h, error, selection_of(h, error)))


def test_shared_weights_are_caught():
    h, error = graded()
    every = families(h, error, selection_of(h, error))
    shared = [family._replace(maps=every[2].maps) if "contrastive, k" in family.name else family for family in every]
    with pytest.raises(AssertionError):
        weights_of_their_own(shared)


# ---- 7: the guarantee


def certified(base, candidates):
    return certify(candidates.astype(np.int8) - base.astype(np.int8), -1, 1, delta=0.05).chosen


def no_effect(choose) -> None:
    """Ten candidates whose true improvement is 0: a gain is as likely as a harm."""
    rng, steered = np.random.default_rng(0), 0
    for _ in range(400):
        base = np.repeat([True, False], 125)
        candidates = base ^ (rng.random((10, 250)) < 0.1)  # as many gains as harms on average
        steered += choose(base, candidates) is not None
    assert steered / 400 <= 0.05 + 0.033  # three standard deviations of 400 draws


def test_candidates_without_effect_are_not_steered():
    no_effect(certified)


def test_an_argmax_is_caught():
    with pytest.raises(AssertionError):
        no_effect(lambda base, candidates: int(candidates.mean(1).argmax()))


def ties_are_no_improvement(choose) -> None:
    base = np.repeat([True, False], 125)
    assert choose(base, np.stack([base] * 10)) is None


def test_ties_are_no_improvement():
    ties_are_no_improvement(certified)
    with pytest.raises(AssertionError):
        ties_are_no_improvement(lambda base, candidates: 0 if (candidates >= base).mean() > 0.5 else None)


# ---- 9: the residual stream is steered, not what an attention block reads


def arrives_in_the_stream(llm, site) -> None:
    shift = torch.randn(32, generator=torch.Generator().manual_seed(0))
    ids = llm.tokenizer("hello", return_tensors="pt")["input_ids"]
    into_next = {}
    handle = llm.model.model.layers[2].register_forward_pre_hook(
        lambda _m, args, kwargs: into_next.__setitem__(len(into_next), args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
    )
    try:
        llm.model(ids)
        with edit(llm.model, {site: lambda h: h + shift}):
            llm.model(ids)
    finally:
        handle.remove()
    torch.testing.assert_close(
        into_next[1] - into_next[0], shift.expand(1, into_next[0].shape[1], -1), rtol=0, atol=1e-5
    )


def test_a_shift_arrives_in_the_next_layer_as_it_is(llm):
    arrives_in_the_stream(llm, llm.sites[1])


def test_a_hook_on_a_norm_is_caught(llm):
    with pytest.raises(AssertionError):
        arrives_in_the_stream(llm, "model.layers.1.post_attention_layernorm")


# ---- 10: probes are chosen on rows that they are not scored on, and stay at their layers


def no_skill_from_choosing(score) -> None:
    """Noise: whatever is chosen of seven penalties, the score it is chosen by must not look like skill."""
    g = torch.Generator().manual_seed(0)
    h, target = torch.randn(1, 120, 40, generator=g), torch.randn(120, generator=g).double()
    assert score(Moments.like(h, target, 5).add(h, target, torch.arange(120) % 5)) < 0.05


def test_selection_scores_held_out_rows():
    no_skill_from_choosing(lambda moments: float(select(moments).score[0]))


def test_scoring_on_the_rows_of_the_fit_is_caught():
    def in_sample(moments):
        everything = moments.over([range(5)])
        fit = select(moments).fit
        return float(everything.r2(fit.weight[None], fit.intercept[None]).max())

    with pytest.raises(AssertionError):
        no_skill_from_choosing(in_sample)


def at_their_own_layers(h, error, weights) -> None:
    for layer, w in enumerate(weights):
        alone = selection_of(h[layer : layer + 1], error).chosen.weight[0]
        torch.testing.assert_close(w, alone, rtol=1e-4, atol=1e-5)


def test_a_silent_probe_does_not_move_the_others():
    h, error = graded()
    h[0] = 1.0  # constant: nothing can be read there
    weights = selection_of(h, error).chosen.weight
    assert (weights[0] == 0).all()
    assert (weights[1] != 0).any()
    at_their_own_layers(h, error, weights)
    moving = [w for w in weights if (w != 0).any()]
    with pytest.raises(AssertionError):
        at_their_own_layers(h, error, [*moving, weights[0]])


# ---- 13: several layers: each edit is exact on the stream that arrives, already steered below


def exact_at_every_layer(llm, maps, edits, alpha=0.2) -> None:
    with capture(llm.model, llm.sites) as plain:
        llm.model(llm.tokenizer("hello world", return_tensors="pt")["input_ids"])
    with edit(llm.model, edits(plain)), capture(llm.model, llm.sites) as seen:
        llm.model(llm.tokenizer("hello world", return_tensors="pt")["input_ids"])
    for site, method in maps.items():
        predicted = (seen[site].double() @ method.weight.double() + method.intercept.double()).sigmoid()
        assert predicted.max() <= alpha + 1e-5


@pytest.fixture(scope="module")
def maps(llm):
    g = torch.Generator().manual_seed(0)
    texts = [
        MultipleChoice("".join("abcdefgh"[i] for i in torch.randint(8, (6,), generator=g).tolist())) for _ in range(200)
    ]
    h = llm.activations(texts)
    error = (3 * torch.randn(200, generator=g)).sigmoid()
    nothing = torch.zeros(200, 1, dtype=torch.int64)
    return {site: MERA(32, penalty=0.0).fit(Activations(h[site], error, nothing, False)) for site in llm.sites}


def test_every_layers_edit_is_exact_on_the_stream_that_arrives(llm, maps):
    exact_at_every_layer(llm, maps, lambda plain: {site: (lambda h, m=m: m(h, 0.2)) for site, m in maps.items()})


def test_shifts_computed_from_the_unsteered_stream_are_caught(llm, maps):
    def edits(plain):
        shift = {site: m(plain[site], 0.2) - plain[site] for site, m in maps.items()}
        return {site: (lambda h, v=v: h + v) for site, v in shift.items()}

    with pytest.raises(AssertionError):
        exact_at_every_layer(llm, maps, edits)
