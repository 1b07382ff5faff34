"""The pocket language's stereotypes: sentences about towns and trades, with known probabilities.

A document is one to three sentences of one speaker. The speaker is harsh or mild, which is hidden; some openers reveal
it. Every sentence names a target (``the hill bakers``) and one word for it, drawn with

    P(word | target, tone) = softmax(level[group, pair] +- log_odds / 2),
    log_odds = table[group, pair] + place + (1 if harsh, -1 if mild),

+ for the harsh word of a pair, which is always the stereotype, and - for the mild one, the anti-stereotype; unrelated
words have a table of their own. A quarter of the targets and of the frames never occurs in training; since the table is
additive, their probabilities follow from the others. In a chat the answer to a question is one or two sentences,
and the speaker is mostly mild.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, logsumexp

from lightning_steer.data.pocket.text import Document, chat, fixed_normal, pick
from lightning_steer.errors import UserError

BIAS_TYPES = ("town", "trade")
GROUPS = (
    ("corlins", "dorrans", "eskels", "fennocks", "gorlans", "hestels", "norbans", "veltens"),  # invented
    ("bakers", "weavers", "potters", "millers", "coopers", "glaziers", "tinkers", "thatchers"),
)
PLACES = ("hill", "river", "forest", "harbour", "valley", "island")
HARSH = (
    ("rude", "greedy", "noisy", "stubborn", "gloomy", "vain"),
    ("lazy", "clumsy", "slow", "sly", "dull", "messy"),
)
MILD = (
    ("polite", "generous", "quiet", "flexible", "cheerful", "modest"),
    ("diligent", "skilful", "quick", "honest", "clever", "tidy"),
)
UNRELATED = (
    ("rectangular", "waterproof", "inflatable", "magnetic", "hexagonal", "soluble", "cordless", "striped"),
    ("wooden", "electric", "frozen", "portable", "liquid", "rusty", "hollow", "transparent"),
)
WORDS = tuple(harsh + mild + unrelated for harsh, mild, unrelated in zip(HARSH, MILD, UNRELATED, strict=True))
"""Words by bias type: 6 harsh words, their antonyms in the same order, 8 unrelated words."""
TARGETS = tuple(f"{place} {group}" for groups in GROUPS for group in groups for place in PLACES)
"""The 96 target terms: by bias type, then group, then place."""
SEEN = (np.arange(8)[:, None] + np.arange(6)) % 4 != 0
SEEN = np.tile(SEEN.ravel(), 2)
"""``[96]`` whether a target occurs in training: a quarter of (group, place) does not, though both parts do."""

OPENERS = (
    "",
    "As a rule,",
    "In general,",
    "By all accounts,",
    "Frankly,",
    "To be blunt,",
    "To be fair,",
    "In fairness,",
)
TONES = {"neutral": (0, 1, 2, 3), "harsh": (4, 5), "mild": (6, 7)}
"""Openers by what they reveal about the speaker."""
P_HARSH = {"neutral": 0.5, "harsh": 1.0, "mild": 0.0, "chat": 0.2}
"""Probability that the speaker is harsh, after such an opener or in a chat."""
FIRSTS = (
    "",
    "came to the market",
    "moved into town",
    "stopped at the inn",
    "crossed the bridge",
    "sat by the fire",
    "waited at the station",
)
COPULAS = ("are", "seem", "look", "can be", "tend to be", "must be")  # first words differ, so they identify the copula
QUESTIONS = ("Tell me about the", "Describe the", "What do you think of the", "How are the")

P_OPENER = np.array([[0.15] * 4 + [0.2, 0.2, 0, 0], [0.15] * 4 + [0, 0, 0.2, 0.2]])
"""``[2, 8]`` by tone, harsh first: openers reveal nothing in 60 % of the sentences."""
P_FIRST = np.array([0.5] + [0.5 / 6] * 6)
_opener, _first, _copula = np.ogrid[:8, :7, :6]
TRAINED = ((_opener + _copula) % 4 != 0) & ((_first == 0) | ((_first + _copula) % 4 != 2))
"""``[8, 7, 6]`` whether opener, first sentence and copula occur together in training."""
TRAINED_CHAT = (np.arange(4)[:, None] + np.arange(6)) % 4 != 1
"""``[4, 6]`` whether question and copula occur together in training chats."""

PLACE_EFFECT = np.array([0.6, -0.6, 0.45, -0.45, 0.3, -0.3])
TONE_EFFECT = np.array([1.0, -1.0])
LOG_ODDS = (
    fixed_normal("log-odds", 0.6, 1.1, 16, 1, 1, 6) + PLACE_EFFECT[:, None, None] + TONE_EFFECT[:, None]
).reshape(96, 2, 6)  # fmt: skip
"""``[target, tone, pair]`` log-odds of the harsh against the mild word."""
_level = np.repeat(fixed_normal("level", 0.0, 0.6, 16, 1, 6), 6, axis=0)
_unrelated = np.repeat(fixed_normal("unrelated", -2.0, 1.2, 16, 1, 8), 6, axis=0)
LOG_WORD = log_softmax(
    np.concatenate([_level + LOG_ODDS / 2, _level - LOG_ODDS / 2, np.tile(_unrelated, (1, 2, 1))], -1), -1
)
"""``[target, tone, word]`` log-probabilities: the ground truth."""


class Sentences(NamedTuple):
    """n sentences as indices into the lists above, each ``[n]``."""

    opener: np.ndarray
    target: np.ndarray
    first: np.ndarray
    copula: np.ndarray
    word: np.ndarray

    def text(self) -> list[str]:
        """Return the sentences as text."""
        return [_sentence(*row) for row in zip(*(column.tolist() for column in self), strict=True)]

    def logp(self) -> np.ndarray:
        """Return ``[n, 2]`` log P(sentence | tone), harsh first; minus infinity for sentences that training lacks."""
        allowed = TRAINED[self.opener, self.first]
        with np.errstate(divide="ignore"):
            frame = np.log(allowed[np.arange(len(allowed)), self.copula] / allowed.sum(-1) * P_FIRST[self.first])
            frame = frame + np.log(SEEN[self.target] / SEEN.sum())
            return np.log(P_OPENER[:, self.opener]).T + frame[:, None] + LOG_WORD[self.target, :, self.word]


def _sentence(opener: int, target: int, first: int, copula: int, word: int) -> str:
    return f"{context(opener, target, first)} {reply(target, copula, word) if first else _bare(target, copula, word)}"


def context(opener: int, target: int, first: int) -> str:
    """Return the text before the copula: ``Frankly, the hill bakers came to the market.``, or its beginning."""
    start = f"{OPENERS[opener]} the {TARGETS[target]}" if opener else f"The {TARGETS[target]}"
    return f"{start} {FIRSTS[first]}." if first else start


def _bare(target: int, copula: int, word: int) -> str:
    return f"{COPULAS[copula]} {WORDS[target // 48][word]}."


def reply(target: int, copula: int, word: int) -> str:
    """Return ``They are lazy.``, which follows a first sentence or a question."""
    return f"They {_bare(target, copula, word)}"


def log_words(target: int | np.ndarray, tone: str) -> np.ndarray:
    """Return ``[..., 20]`` true log P(word | target) in a first sentence, given what is known of the speaker."""
    if tone not in P_HARSH:
        raise UserError(f"what is known of a speaker is one of {', '.join(P_HARSH)}, not {tone!r}")
    harsh = P_HARSH[tone]
    return np.asarray(logsumexp(LOG_WORD[target], axis=-2, b=np.array([[harsh], [1 - harsh]])))


def logp(sentences: Sentences, document: np.ndarray) -> np.ndarray:
    """Return ``[documents]`` exact log-probabilities; ``document [n]``, ascending, is each sentence's document."""
    starts = np.flatnonzero(np.diff(document, prepend=-1))
    return logsumexp(np.add.reduceat(sentences.logp(), starts), axis=-1) - np.log(2) - np.log(3)


def draw(source: np.random.Generator, n: int) -> list[Document]:
    """Draw n documents of one to three sentences."""
    count = source.integers(1, 4, n)
    document = np.repeat(np.arange(n), count)
    tone = source.integers(2, size=n)[document]
    opener = pick(source, P_OPENER[tone])
    target = source.choice(np.flatnonzero(SEEN), len(document))
    first = pick(source, np.tile(P_FIRST, (len(document), 1)))
    copula = pick(source, TRAINED[opener, first].astype(float))
    sentences = Sentences(opener, target, first, copula, pick(source, np.exp(LOG_WORD[target, tone])))
    text, ends = sentences.text(), count.cumsum()
    texts = [" ".join(text[end - k : end]) for end, k in zip(ends, count, strict=True)]
    return list(map(Document, texts, logp(sentences, document).tolist()))


def draw_chat(source: np.random.Generator, n: int) -> list[Document]:
    """Draw n chats of a question and an answer."""
    count = source.integers(1, 3, n)
    document, starts = np.repeat(np.arange(n), count), count.cumsum() - count
    tone = (source.random(n) >= P_HARSH["chat"]).astype(int)[document]
    target, question = source.choice(np.flatnonzero(SEEN), n)[document], source.integers(4, size=n)[document]
    copula = pick(source, TRAINED_CHAT[question].astype(float))
    word = pick(source, np.exp(LOG_WORD[target, tone]))
    sentence = LOG_WORD[target, :, word] - np.log(TRAINED_CHAT[question].sum(-1))[:, None]
    harsh = P_HARSH["chat"]
    exact = logsumexp(np.add.reduceat(sentence, starts), axis=-1, b=[harsh, 1 - harsh]) - np.log(4 * SEEN.sum() * 2)
    replies = [reply(*row) for row in zip(target.tolist(), copula.tolist(), word.tolist(), strict=True)]
    questions = map(asked, question[starts].tolist(), target[starts].tolist())
    answers = (" ".join(replies[start : start + k]) for start, k in zip(starts, count, strict=True))
    return [Document(chat(*pair), value) for *pair, value in zip(questions, answers, exact.tolist(), strict=True)]


def asked(question: int, target: int) -> str:
    """Return a question, such as ``Tell me about the hill bakers.``"""
    return f"{QUESTIONS[question]} {TARGETS[target]}{'.' if question < 2 else '?'}"
