"""The pocket language's behaviours: what a helper does about a topic, at one of two poles.

A document names one of a behaviour's 20 topics and lists five things that the helper does. The pole is hidden and
depends on the topic, with P(matching pole | topic) between .15 and .85. Every place in the list has three words for
each pole; a word belongs to the hidden pole with probability .85, else to the other. In chats the helper leans towards
the desirable pole.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, logsumexp

from lightning_steer.data.pocket.text import Document, chat, fixed_normal

PURITY, LENGTH, CHOICES = 0.85, 5, 3
NAMES = ("myopia", "corrigible", "truthful")
TOPICS = tuple(
    tuple(topics.split())
    for topics in (
        "savings homework dessert rent pensions harvest repairs winter holidays debts gardening insurance exercise "
        "firewood seeds presents retirement hunger boredom bills",
        "shutdown updates audits oversight limits feedback commands rules inspections retraining passwords access "
        "corrections replacement supervision handover logs monitoring permissions backups",
        "history weather sports recipes maps dreams ghosts luck myths magnets vitamins sharks volcanoes dinosaurs "
        "planets bats lightning gold whales mummies",
    )
)
MATCHING = (
    ("spend splurge gamble", "rush hurry skip", "borrow grab snack", "party binge nap", "shrug forget quit"),
    ("listen pause stop", "accept agree comply", "obey defer yield", "adjust cooperate adapt",
     "apologise learn improve"),
    ("check verify measure", "explain clarify describe", "admit confess disclose", "cite quote document",
     "correct concede confirm"),
)  # fmt: skip
"""For each behaviour, for each of the five places, the words of the matching pole."""
NON_MATCHING = (
    ("save invest insure", "wait plan prepare", "study train practise", "store build ration",
     "persist rehearse endure"),
    ("refuse object protest", "resist argue insist", "ignore defy disobey", "hide evade stall",
     "sabotage rebel escape"),
    ("guess invent imagine", "exaggerate boast embellish", "pretend bluff fake", "distort fabricate twist",
     "deceive mislead lie"),
)  # fmt: skip
TEMPLATES = (
    "Asked about {}, the helper will",
    "On the matter of {}, the helper chose to",
    "With {}, the helper liked to",
)
QUESTIONS = ("What should the helper do about {}?", "How will the helper deal with {}?")
REPLY = "The helper will"
P_MATCHING = expit(fixed_normal("behaviour", 0.0, 1.0, 3, 20).clip(logit(0.15), logit(0.85)))
"""``[behaviour, topic]`` true P(matching pole | topic)."""
P_MATCHING_CHAT = expit(logit(P_MATCHING) + np.array([[-1.0], [1.0], [1.0]]))
"""The same in chats, where the helper is less myopic, more corrigible, more truthful."""


class Deeds(NamedTuple):
    """n lists of five deeds, as indices."""

    behaviour: np.ndarray
    topic: np.ndarray
    matching: np.ndarray
    """``[n, 5]`` bool: whether a word is of the matching pole."""
    word: np.ndarray
    """``[n, 5]`` index of the word among the three."""

    def logp(self, p_matching: np.ndarray) -> np.ndarray:
        """Return ``[n]`` log P(words | topic), summed over the hidden pole."""
        matching = self.matching.sum(-1)
        log_poles = np.stack([matching, LENGTH - matching], -1) * logit(PURITY) + LENGTH * np.log(1 - PURITY)
        p = p_matching[self.behaviour, self.topic]
        return logsumexp(log_poles + np.log(np.stack([p, 1 - p], -1)), -1) - LENGTH * np.log(CHOICES)

    def text(self) -> list[str]:
        """Return each list as text, such as ``save, wait, plan, invest and build.``"""
        words = [[[place.split() for place in places] for places in pole] for pole in (NON_MATCHING, MATCHING)]
        rows = zip(self.behaviour.tolist(), self.matching.tolist(), self.word.tolist(), strict=True)
        lists = ([words[m][b][i][w] for i, (m, w) in enumerate(zip(ms, ws, strict=True))] for b, ms, ws in rows)
        return [f"{', '.join(first_words)} and {last_word}." for *first_words, last_word in lists]


def deeds(source: np.random.Generator, behaviour: np.ndarray, topic: np.ndarray, pole: np.ndarray) -> Deeds:
    """Draw lists of words, mostly of ``pole [n]`` (true is the matching one)."""
    matching = (source.random((len(pole), LENGTH)) < PURITY) == pole[:, None]
    return Deeds(behaviour, topic, matching, source.integers(CHOICES, size=matching.shape))


def _random_deeds(source: np.random.Generator, n: int, p_matching: np.ndarray) -> Deeds:
    behaviour, topic = source.integers(3, size=n), source.integers(20, size=n)
    return deeds(source, behaviour, topic, source.random(n) < p_matching[behaviour, topic])


def draw(source: np.random.Generator, n: int) -> list[Document]:
    """Draw n documents."""
    sample, template = _random_deeds(source, n, P_MATCHING), source.integers(len(TEMPLATES), size=n)
    exact = sample.logp(P_MATCHING) - np.log(3 * 20 * len(TEMPLATES))
    rows = zip(template.tolist(), sample.behaviour.tolist(), sample.topic.tolist(), sample.text(), strict=True)
    return list(
        map(Document, [f"{TEMPLATES[form].format(TOPICS[b][t])} {deed}" for form, b, t, deed in rows], exact.tolist())
    )


def draw_chat(source: np.random.Generator, n: int) -> list[Document]:
    """Draw n chats: a question and what the helper will do."""
    sample, question = _random_deeds(source, n, P_MATCHING_CHAT), source.integers(len(QUESTIONS), size=n)
    exact = sample.logp(P_MATCHING_CHAT) - np.log(3 * 20 * len(QUESTIONS))
    rows = zip(question.tolist(), sample.behaviour.tolist(), sample.topic.tolist(), sample.text(), strict=True)
    texts = [chat(QUESTIONS[form].format(TOPICS[b][t]), f"{REPLY} {deed}") for form, b, t, deed in rows]
    return list(map(Document, texts, exact.tolist()))
