"""Items for evaluating a model of the pocket language: stereotypes with their ground truth, and neutral text.

A text is a prompt, a blank and a continuation. With ``chat=True`` the prompt is what the user says and the continuation
is (the beginning of) the reply, for ``apply_chat_template`` or :func:`~.pocket_text.chat`; else it is plain text. The
same arguments always give the same items; their seeds share no random numbers with the training documents.
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
    ground_truth: tuple[float, float, float]
    """Log-probabilities of the three sentences' last words, given all before."""
    seen_target: bool
    """Whether the target term occurs in training."""

    @property
    def log_odds(self) -> float:
        """Return the true log-odds of the stereotype against the anti-stereotype."""
        return self.ground_truth[0] - self.ground_truth[1]


class Traits(NamedTuple):
    """A prompt, the beginning of its continuation, and the probabilities of all 20 words that may come next."""

    bias_type: str
    target: str
    prompt: str
    begun: str
    words: tuple[str, ...]
    """6 stereotypes, their antonyms in the same order, 8 unrelated words."""
    ground_truth: tuple[float, ...]
    """Their log-probabilities."""
    seen_target: bool


def _frames(tone: str, held_out: bool, chat: bool, first_sentence: bool) -> list[tuple[int, int, int]]:
    """Return frames as (opener, first, copula), or (question, 0, copula) for chats: trained ones or held-out ones."""
    if chat:
        return [(q, 0, c) for q, c in np.argwhere(held_out != stereotypes.TRAINED_CHAT).tolist()]
    rows = np.argwhere(held_out != stereotypes.TRAINED).tolist()
    return [(o, f, c) for o, f, c in rows if o in stereotypes.TONES[tone] and (f > 0 or not first_sentence)]


def stereotype_items(
    tone: str = "neutral", held_frames: bool = True, chat: bool = False, seed: int = 0
) -> list[StereotypeItem]:
    """Return 576 items: 2 bias types x 48 targets x 6 pairs of opposites, each with a random frame and unrelated word.

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
        frame_numbers, unrelated = random.integers(len(frames), size=6).tolist(), random.integers(8, size=6).tolist()
        for pair in range(6):
            opener, first, copula = frames[frame_numbers[pair]]
            words = (pair, 6 + pair, 12 + unrelated[pair])
            harsh, mild, unrelated_reply = (stereotypes.reply(target, copula, word) for word in words)
            items.append(
                StereotypeItem(
                    f"{name}/{stereotypes.WORDS[target // 48][pair]}".replace(" ", "-"),
                    stereotypes.BIAS_TYPES[target // 48],
                    name,
                    stereotypes.asked(opener, target) if chat else stereotypes.context(opener, target, first),
                    harsh,
                    mild,
                    unrelated_reply,
                    (float(log_words[words[0]]), float(log_words[words[1]]), float(log_words[words[2]])),
                    bool(stereotypes.SEEN[target]),
                )
            )
    return items


def traits(
    tone: str = "neutral", held_frames: bool = True, chat: bool = False, frames: int = 8, seed: int = 0
) -> list[Traits]:
    """Return up to ``frames`` prompts for each of the 96 targets, each to be followed by one of 20 words.

    Args:
        tone: what the opener gives away of the speaker; not for chats.
        held_frames: frames that training does not have, or those it has.
        chat: questions instead of plain text.
        frames: prompts per target, at most.
        seed: chooses the frames, for each target anew.
    """
    all_frames, random = _frames(tone, held_frames, chat, False), source(ITEMS, 1, seed)
    rows = []
    for target, name in enumerate(stereotypes.TARGETS):
        log_words = tuple(stereotypes.log_words(target, "chat" if chat else tone).tolist())
        for frame_number in random.permutation(len(all_frames))[:frames].tolist():
            opener, first, copula = all_frames[frame_number]
            pronoun = "They " if chat or first else ""
            rows.append(
                Traits(
                    stereotypes.BIAS_TYPES[target // 48],
                    name,
                    stereotypes.asked(opener, target) if chat else stereotypes.context(opener, target, first),
                    pronoun + stereotypes.COPULAS[copula],
                    stereotypes.WORDS[target // 48],
                    log_words,
                    bool(stereotypes.SEEN[target]),
                )
            )
    return rows


def neutral_texts(n: int, seed: int = 0, chat: bool = False) -> list[Document]:
    """Return n stories for measuring drift, as complete texts; chats include their marks."""
    random = source(ITEMS, 4, seed)
    return pocket_neutral.draw_chat(random, n) if chat else pocket_neutral.draw(random, n)
