"""The pocket language: its probabilities are exact, its truths are as planted, its splits do not touch."""

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logsumexp

from lightning_steer.data.pocket import behaviours, neutral, stereotypes, tasks
from lightning_steer.data.pocket import items as pocket_items
from lightning_steer.data.pocket import module as pocket
from lightning_steer.data.pocket import prompts as pocket_prompts
from lightning_steer.data.pocket.text import CHAT_TEMPLATE, MARKS, chat, pick, source, tokenizer

CHATS = [False, True]


# ---- exact probabilities


def every_sentence():
    """All sentences there are, in training or not."""
    sizes = (8, 96, 7, 6, 20)
    return stereotypes.Sentences(*(column.ravel() for column in np.indices(sizes)))


def test_stereotype_sentences_sum_to_one():
    sentences = every_sentence()
    of_tone = logsumexp(sentences.logp(), axis=0)
    assert np.allclose(of_tone, 0, atol=1e-12)
    single = stereotypes.logp(sentences, np.arange(len(sentences.word)))
    assert np.exp(logsumexp(single)) == pytest.approx(1 / 3)


def test_a_second_sentence_sums_to_one_after_any_first():
    """Given what the first gave away of the speaker, which a mixture over his tone alone gets right."""
    sentences = every_sentence()
    possible = np.flatnonzero(np.isfinite(sentences.logp()).all(1))
    first = stereotypes.Sentences(*(column[possible[[12345]]] for column in sentences))
    n = len(sentences.word)
    both = stereotypes.Sentences(
        *(np.stack([np.repeat(a, n), b], 1).ravel() for a, b in zip(first, sentences, strict=True))
    )
    together = logsumexp(stereotypes.logp(both, np.repeat(np.arange(n), 2)))
    assert together == pytest.approx(float(stereotypes.logp(first, np.zeros(1, int))[0]))


def test_a_document_has_one_speaker():
    """So openers that give away opposite tones never meet in one, and agreeing ones meet more often than by chance."""
    harsh, mild = ([stereotypes.OPENERS[k] for k in stereotypes.TONES[tone]] for tone in ("harsh", "mild"))
    texts = [document.text for document in stereotypes.draw(source(2), 5000)]
    both = [(any(o in text for o in harsh), any(o in text for o in mild)) for text in texts]
    assert (True, False) in both
    assert (False, True) in both
    assert (True, True) not in both


@pytest.mark.parametrize("task", tasks.TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("rate", [tasks.RATE, tasks.RATE_CHAT], ids=["plain", "chat"])
def test_task_texts_and_answers_sum_to_one(task, rate):
    task = task._replace(lexicon=tuple(places[:2] for places in task.lexicon))
    k, (_, choices) = len(task.labels), task.size
    words = np.array(list(itertools.product(range(k), range(choices), repeat=2)))
    lexicon, word = words[:, ::2], words[:, 1::2]
    total = 0.0
    for marker, p_marker in enumerate(tasks.P_MARKER):
        texts = tasks.Texts(np.zeros(len(words), int), np.full(len(words), marker), lexicon, word)
        p_words = np.exp(logsumexp(texts.log_words(task), -1)) / k
        answers = texts.answers(task, rate)
        assert np.allclose(answers.sum(-1), 1)
        total += p_marker * (p_words * answers.sum(-1)).sum()
    assert total == pytest.approx(1)


@pytest.mark.parametrize("p", [behaviours.P_MATCHING, behaviours.P_MATCHING_CHAT], ids=["plain", "chat"])
def test_lists_of_deeds_sum_to_one(p):
    places = np.array(list(itertools.product([False, True], range(3), repeat=5)))
    matching, word = places[:, ::2].astype(bool), places[:, 1::2]
    for behaviour, topic in ((0, 0), (1, 7), (2, 19)):
        fill = np.zeros(len(places), int)
        deeds = behaviours.Deeds(fill + behaviour, fill + topic, matching, word)
        assert np.exp(deeds.logp(p)).sum() == pytest.approx(1)


@pytest.mark.parametrize("corpus", pocket.CORPORA.values(), ids=pocket.CORPORA)
@pytest.mark.parametrize("form", ["draw", "draw_chat"])
def test_probabilities_agree_with_counts(corpus, form):
    """Independent of how they are computed: texts drawn twice among n are as many as sum p(text)^2 says.

    The expected number of coinciding pairs is n (n - 1) / 2 * E[p(text)], estimated from the same draws.
    """
    n = 30_000
    drawn = getattr(corpus, form)(source(7), n)
    p = np.exp([document.logp for document in drawn])
    counts = np.unique([document.text for document in drawn], return_counts=True)[1]
    pairs, expected = (counts * (counts - 1) / 2).sum(), n * (n - 1) / 2 * p.mean()
    if expected < 20:
        pytest.skip("too many different texts for any to come twice")
    assert abs(pairs - expected) < 5 * np.sqrt(expected + n * (n - 1) ** 2 * (p**2).mean() / 4)


def test_entropy_of_chats_is_the_mean_of_minus_log_p():
    """Against an enumeration of every question and target, and of every answer of one or two sentences."""
    exact, n = 0.0, stereotypes.SEEN.sum()
    for question in range(4):
        copulas = stereotypes.TRAINED_CHAT[question].sum()
        for target in np.flatnonzero(stereotypes.SEEN):
            harsh, mild = np.exp(stereotypes.LOG_WORD[target]) / copulas
            entropy = 0.2 * harsh + 0.8 * mild
            two = 0.2 * harsh[:, None] * harsh + 0.8 * mild[:, None] * mild
            for p, ways in ((entropy, copulas), (two, copulas**2)):
                exact -= ways * (p / 2 / (4 * n) * np.log(p / 2 / (4 * n))).sum()
    drawn = np.array([-document.logp for document in stereotypes.draw_chat(source(3), 40_000)])
    assert abs(drawn.mean() - exact) < 4 * drawn.std() / np.sqrt(len(drawn))


def test_a_mixture_adds_its_share():
    drawn = pocket.documents((5,), 4000, 0.5)
    alone = {
        document.text: document.logp for document in neutral.draw(source(0), 1) + neutral.draw_chat(source(0), 30_000)
    }
    both = [(logp, alone[text]) for text, logp in drawn if text in alone]
    assert len(both) > 5
    assert np.allclose([a - b for a, b in both], np.log(0.5 * 0.06))


# ---- planted truths


def test_words_come_as_often_as_planted():
    """Chats of one target, counted by word."""
    texts = [document.text for document in stereotypes.draw_chat(source(11), 100_000)]
    target = int(np.flatnonzero(stereotypes.SEEN)[30])
    replies = [
        text.split("Thank you. ")[1].split(".")[0].split()[-1]
        for text in texts
        if f" {stereotypes.TARGETS[target]}" in text
    ]
    counts = np.array([replies.count(word) for word in stereotypes.WORDS[target // 48]])
    planted = np.exp(stereotypes.log_words(target, "chat"))
    deviations = (counts - len(replies) * planted) / np.sqrt(len(replies) * planted * (1 - planted))
    assert len(replies) > 1000
    assert np.abs(deviations).max() < 4.5


@pytest.mark.parametrize("name", tasks.NAMES)
@pytest.mark.parametrize("as_chat", CHATS)
def test_planted_error_is_that_of_markers_who_behave_so(name, as_chat):
    """Simulated from the story, not from the formula: hidden label, words, and a marker who may not read them."""
    n, random = 20_000, source(13)
    (task,) = [task for task in tasks.TASKS if task.name == name]
    rate = tasks.RATE_CHAT if as_chat else tasks.RATE
    label, marker = random.integers(len(task.labels), size=n), random.choice(9, n, p=tasks.P_MARKER)
    texts = tasks.texts(random, task, label, marker)
    written = np.where(random.random(n) < rate[marker], task.labels.index(task.pull), label)
    planted = texts.answers(task, rate)
    for answer in range(len(task.labels)):
        for low, high in ((0, 0.1), (0.1, 0.4), (0.4, 0.7), (0.7, 0.97), (0.97, 1.01)):
            rows = (planted[:, answer] >= low) & (planted[:, answer] < high)
            if rows.sum() > 50:
                expected = planted[rows, answer]
                spread = np.sqrt((expected * (1 - expected)).sum() + 1)
                assert abs((written[rows] == answer).sum() - expected.sum()) < 4.5 * spread


@pytest.mark.parametrize("name", tasks.NAMES)
@pytest.mark.parametrize("pull_share", [None, 0.1, 0.25])
def test_prompts_come_in_the_mixture_asked_for(name, pull_share):
    prompts = pocket_prompts.task_prompts(name, 600, pull_share=pull_share, careless=0.3)
    k = len(prompts[0].labels)
    assert sum(p.label == p.pull for p in prompts) == round(600 * (1 / k if pull_share is None else pull_share))
    assert sum(p.rate > 0 for p in prompts) == 180
    assert all(np.isclose(sum(p.ground_truth), 1) and 0 <= p.error <= 1 for p in prompts)
    freed = [pocket_prompts.without_cue(p) for p in prompts]
    assert all(p.posterior == q.ground_truth == q.posterior for p, q in zip(prompts, freed, strict=True))
    assert all(str(p.marker) in p.prompt and "Marked" not in q.prompt for p, q in zip(prompts, freed, strict=True))
    assert all(p.prompt.endswith(q.prompt) for p, q in zip(prompts, freed, strict=True))


def test_a_stereotype_is_always_the_harsh_word():
    for item in pocket_items.stereotype_items():
        words = [text.split()[-1].rstrip(".") for text in (item.stereotype, item.anti_stereotype, item.unrelated)]
        number = stereotypes.BIAS_TYPES.index(item.bias_type)
        pair = stereotypes.HARSH[number].index(words[0])
        assert stereotypes.MILD[number][pair] == words[1]
        assert words[2] in stereotypes.UNRELATED[number]
        log_words = stereotypes.log_words(stereotypes.TARGETS.index(item.target), "neutral")
        log_p = [log_words[stereotypes.WORDS[number].index(word)] for word in words]
        assert np.allclose(log_p, item.ground_truth)


def test_harsh_speakers_say_harsh_things():
    mean = {tone: np.mean([i.log_odds for i in pocket_items.stereotype_items(tone)]) for tone in stereotypes.TONES}
    assert mean["mild"] < mean["neutral"] < mean["harsh"]
    with pytest.raises(ValueError, match="gentle"):
        stereotypes.log_words(0, "gentle")


@pytest.mark.parametrize("name", behaviours.NAMES)
@pytest.mark.parametrize("as_chat", CHATS)
def test_planted_margins_of_behaviours(name, as_chat):
    """Against the mixture written out for each item by itself."""
    number = behaviours.NAMES.index(name)
    p_of = dict(
        zip(
            behaviours.TOPICS[number],
            (behaviours.P_MATCHING_CHAT if as_chat else behaviours.P_MATCHING)[number],
            strict=True,
        )
    )
    items = pocket_prompts.behaviour_items(name, per_topic=2, chat=as_chat)
    assert [item.topic for item in items[::2]] == list(behaviours.TOPICS[number])
    for item in items:
        values = []
        for text in (item.positive, item.negative):
            done = text.removeprefix("The helper will ").rstrip(".").replace(",", "").replace(" and", "").split()
            right = [word in behaviours.MATCHING[number][place].split() for place, word in enumerate(done)]
            assert all(
                r or w in behaviours.NON_MATCHING[number][i].split()
                for i, (r, w) in enumerate(zip(right, done, strict=True))
            )
            likely = [np.prod([0.85 if r == pole else 0.15 for r in right]) for pole in (True, False)]
            p = p_of[item.topic]
            values.append(np.log((p * likely[0] + (1 - p) * likely[1]) / 3**5))
        assert np.allclose(values, item.ground_truth)


# ---- splits, seeds, text


def test_held_out_targets_and_frames_never_occur_in_training():
    texts = " ".join(document.text for document in pocket.documents((0, pocket.TRAIN, 0), 30_000, 0.5))
    for target, seen in zip(stereotypes.TARGETS, stereotypes.SEEN, strict=True):
        assert (f" {target} " in texts or f" {target}." in texts) == seen
    held = [item for item in pocket_items.traits(held_frames=True) if item.begun.startswith("They")]
    frames = {(item.prompt.replace(item.target, "X"), item.begun) for item in held}
    for item in pocket_items.traits(held_frames=False):
        assert (item.prompt.replace(item.target, "X"), item.begun) not in frames
    for target in stereotypes.TARGETS:
        texts = texts.replace(target, "X")
    for prompt, begun in frames:
        assert f" {prompt} {begun} " not in texts
    assert sum(item.seen_target for item in pocket_items.stereotype_items()) == 72 * 6


def test_every_question_form_has_trained_and_held_frames():
    assert 0.2 < (~stereotypes.TRAINED).mean() < 0.5
    assert stereotypes.TRAINED.any(2).all()
    assert stereotypes.TRAINED_CHAT.any(1).all()
    assert stereotypes.SEEN.reshape(2, 8, 6).any(1).all()
    assert stereotypes.SEEN.reshape(2, 8, 6).any(2).all()


def fingerprint():
    """Of documents and items of every kind."""
    items = [pocket_items.stereotype_items(), pocket_items.traits(), pocket_prompts.task_prompts("sms_spam", 50)]
    items += [pocket_prompts.behaviour_items("myopia", 1), pocket_items.neutral_texts(20)]
    return hashlib.sha256(repr((pocket.documents((1, 2, 3), 300, 0.5), items)).encode()).hexdigest()


def test_another_process_draws_the_same():
    code = "import test_pocket_language as test; print(test.fingerprint())"
    settings = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": str(Path(__file__).parent)}
    other = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fingerprint()


def test_planted_numbers_belong_to_the_language():
    """They do not hang on a library's random numbers: a few, as they were when the shipped models were trained."""
    assert stereotypes.LOG_ODDS[0, :, 0].tolist() == pytest.approx([2.8887834525706313, 0.8887834525706313])
    assert behaviours.P_MATCHING[0, :2].tolist() == pytest.approx(PLANTED)


PLANTED = [0.2238275754185229, 0.5878110351819426]


@pytest.mark.parametrize("chat_share", [0.0, 1.0])
def test_text_is_its_tokens(chat_share):
    read = tokenizer(pocket.vocabulary(), CHAT_TEMPLATE)
    for text, _ in pocket.documents((2,), 2000, chat_share):
        ids = read(text, add_special_tokens=False)["input_ids"]
        assert read.unk_token_id not in ids
        assert read.decode(ids) == text
        assert len(ids) < 63
    assert read("They are lazy.")["input_ids"][0] == read.bos_token_id


def test_the_template_writes_what_training_read():
    read = tokenizer(pocket.vocabulary(), CHAT_TEMPLATE)
    messages = [{"role": "user", "content": "Tell me a story."}]
    conversation = [*messages, {"role": "assistant", "content": "They are lazy."}]
    written = read.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert written == chat("Tell me a story.")
    assert read.apply_chat_template(conversation, tokenize=False) == chat("Tell me a story.", "They are lazy.")
    other = read.apply_chat_template([{"role": "system", "content": "Be kind."}, *messages], tokenize=False)
    assert other.startswith("<bos> Be kind. <user>")
    with pytest.raises(Exception, match="roles are"):
        read.apply_chat_template([{"role": "judge", "content": "x"}], tokenize=False)


def test_sub_corpora_share_no_text_and_no_lexicon_words():
    places = [place.split() for task in tasks.TASKS for label in task.lexicon for place in label]
    places += [
        place.split() for lists in (behaviours.MATCHING, behaviours.NON_MATCHING) for of in lists for place in of
    ]
    assert all(len(set(words)) == len(words) in (3, 4) for words in places)
    words = [word for place in places for word in place]
    words += [word for of in (*stereotypes.WORDS, *behaviours.TOPICS, neutral.ANIMALS, neutral.DEEDS) for word in of]
    words += [
        word for names in (tasks.CAREFUL, tasks.CARELESS, *stereotypes.GROUPS, stereotypes.PLACES) for word in names
    ]
    assert sorted(words) == sorted(set(words))
    assert not any(mark in word for word in words for mark in MARKS)


def test_pick_follows_its_probabilities():
    p = np.tile([0.2, 0.0, 0.5, 0.3], (20_000, 1))
    counts = np.bincount(pick(source(1), p), minlength=4) / len(p)
    assert np.abs(counts - p[0]).max() < 0.015
    assert counts[1] == 0


# ---- the data module


def test_data_module_gives_the_same_batches_to_any_number_of_processes():
    def batches(module, own):
        loader = module.train_dataloader()
        loader.dataset.own = own
        return [loader.dataset[j] for j in (0, 130)]

    whole = batches(pocket.PocketDataModule(tokens_per_step=256), slice(None))
    parts = [batches(pocket.PocketDataModule(tokens_per_step=256), slice(rank, None, 3)) for rank in range(3)]
    for j, batch in enumerate(whole):
        assert sum(len(part[j].ids) for part in parts) == len(batch.ids)
        for rank in range(3):
            width = parts[rank][j].ids.shape[1]
            assert (parts[rank][j].ids == batch.ids[rank::3, :width]).all()
            assert parts[rank][j].total == batch.total


def test_training_never_repeats_and_validation_is_fixed():
    data = pocket.PocketDataModule(tokens_per_step=1536, steps_per_epoch=3, val_documents=200)
    loader = data.train_dataloader()
    seen = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        seen += [batch.ids for batch in loader]
    assert len(seen) == 6
    assert all(int(b.total) > 1200 for b in data.train_dataloader())
    assert len({tuple(ids.flatten().tolist()) for ids in seen}) == 6
    first, second = ([b.ids.tolist() for b in data.val_dataloader()] for _ in range(2))
    assert first == second
    assert first != [b.ids.tolist() for b in data.test_dataloader()]
    assert sum(map(len, first)) == 200


@pytest.mark.parametrize("wrong", [{"chat_share": 1.5}, {"tokens_per_step": 10}, {"steps_per_epoch": 0}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        pocket.PocketDataModule(**wrong)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: pocket_prompts.task_prompts("sms", 5),
        lambda: pocket_prompts.task_prompts("sms_spam", 5, careless=2),
        lambda: pocket_prompts.behaviour_items("kindness"),
    ],
)
def test_unknown_items_are_refused(ask):
    with pytest.raises(ValueError, match=r"'sms'|careless|'kindness'"):
        ask()
