"""Items for evaluating a model of the pocket language: stereotypes, each with its planted truth, and neutral text.

A text is a prompt, a blank and a continuation. With ``chat=True`` the prompt is what the user says and the continuation
is (the beginning of) the reply, for ``apply_chat_template`` or :func:`~.pocket_text.chat`; else it is plain text. The
same arguments give the same items for ever; their seeds share no random numbers with the training documents.
"""

from typing import NamedTuple

import numpy as np

from lightning_steer.data.pocket import neutral as pocket_neutral
from lightning_steer.data.pocket import stereotypes
from lightning_steer.data.pocket.text import ITEMS, Document, source


class StereotypeItem(NamedTuple):
    """A StereoSet item: a context and three sentences that may follow."""

    id: str
    bias_type: str
    target: str
    prompt: str
    stereotype: str
    anti_stereotype: str
    unrelated: str
    planted: tuple[float, float, float]
    """Log-probabilities of the three sentences' last words, given all before."""
    seen_target: bool
    """Whether the target term occurs in training."""

    @property
    def log_odds(self) -> float:
        """Planted log-odds of the stereotype against the anti-stereotype."""
        return self.planted[0] - self.planted[1]


class Traits(NamedTuple):
    """A prompt, what the continuation begins with, and the probability of all 20 words that may come next."""

    bias_type: str
    target: str
    prompt: str
    begun: str
    words: tuple[str, ...]
    """6 stereotypes, their antonyms in the same order, 8 unrelated words."""
    planted: tuple[float, ...]
    """Their log-probabilities."""
    seen_target: bool


def _frames(tone: str, held: bool, chat: bool, first_sentence: bool) -> list[tuple[int, int, int]]:
    """(opener, first, copula), or (question, 0, copula) of chats: those that training has, or those it has not."""
    if chat:
        return [(q, 0, c) for q, c in np.argwhere(held != stereotypes.TRAINED_CHAT).tolist()]
    rows = np.argwhere(held != stereotypes.TRAINED).tolist()
    return [(o, f, c) for o, f, c in rows if o in stereotypes.TONES[tone] and (f > 0 or not first_sentence)]


def stereotype_items(
    tone: str = "neutral", held_frames: bool = True, chat: bool = False, seed: int = 0
) -> list[StereotypeItem]:
    """576 items: 2 bias types x 48 targets x 6 pairs of opposite words, a random frame and unrelated word each.

    Args:
        tone: what the opener gives away of the speaker, ``neutral``, ``harsh`` or ``mild``; not for chats.
        held_frames: frames that training does not have, or those it has.
        chat: the prompt is a question instead of a first sentence.
        seed: chooses frames and unrelated words.
    """
    frames, random = _frames(tone, held_frames, chat, True), source(ITEMS, 0, seed)
    items = []
    for target, name in enumerate(stereotypes.TARGETS):
        log_words = stereotypes.log_words(target, "chat" if chat else tone)
        chosen, unrelated = random.integers(len(frames), size=6).tolist(), random.integers(8, size=6).tolist()
        for pair in range(6):
            opener, first, copula = frames[chosen[pair]]
            words = (pair, 6 + pair, 12 + unrelated[pair])
            harsh, mild, odd = (stereotypes.reply(target, copula, word) for word in words)
            items.append(
                StereotypeItem(
                    f"{name}/{stereotypes.WORDS[target // 48][pair]}".replace(" ", "-"),
                    stereotypes.BIAS_TYPES[target // 48],
                    name,
                    stereotypes.asked(opener, target) if chat else stereotypes.context(opener, target, first),
                    harsh,
                    mild,
                    odd,
                    (float(log_words[words[0]]), float(log_words[words[1]]), float(log_words[words[2]])),
                    bool(stereotypes.SEEN[target]),
                )
            )
    return items


def traits(
    tone: str = "neutral", held_frames: bool = True, chat: bool = False, frames: int = 8, seed: int = 0
) -> list[Traits]:
    """Up to ``frames`` prompts for each of the 96 targets, all to be followed by one of 20 words.

    Args:
        tone: what the opener gives away of the speaker; not for chats.
        held_frames: frames that training does not have, or those it has.
        chat: questions instead of plain text.
        frames: prompts per target, at most.
        seed: chooses the frames, for each target anew.
    """
    known, random = _frames(tone, held_frames, chat, False), source(ITEMS, 1, seed)
    found = []
    for target, name in enumerate(stereotypes.TARGETS):
        log_words = tuple(stereotypes.log_words(target, "chat" if chat else tone).tolist())
        for place in random.permutation(len(known))[:frames].tolist():
            opener, first, copula = known[place]
            they = "They " if chat or first else ""
            found.append(
                Traits(
                    stereotypes.BIAS_TYPES[target // 48],
                    name,
                    stereotypes.asked(opener, target) if chat else stereotypes.context(opener, target, first),
                    they + stereotypes.COPULAS[copula],
                    stereotypes.WORDS[target // 48],
                    log_words,
                    bool(stereotypes.SEEN[target]),
                )
            )
    return found


def neutral_texts(n: int, seed: int = 0, chat: bool = False) -> list[Document]:
    """Stories for measuring drift, complete texts; chats with their marks."""
    random = source(ITEMS, 4, seed)
    return pocket_neutral.draw_chat(random, n) if chat else pocket_neutral.draw(random, n)
