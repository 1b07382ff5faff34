"""The pocket language's neutral text: small scenes unrelated to the other sub-corpora, for measuring drift.

One to three sentences; each draws its words independently, but what an animal does depends on the animal.
"""

import numpy as np
from scipy.special import log_softmax

from lightning_steer.data.pocket.text import Document, chat, fixed_normal, pick

TIMES = ("morning", "evening", "summer", "autumn")
LOOKS = ("grey", "white", "brown", "small", "old", "hungry")
ANIMALS = ("cat", "dog", "goose", "horse", "rabbit", "owl", "fox", "duck")
DEEDS = ("slept", "waited", "played", "rested", "watched", "sang")
SPOTS = (
    "by the well",
    "near the barn",
    "under the tree",
    "in the meadow",
    "behind the mill",
    "on the roof",
    "beside the pond",
    "along the fence",
)
ASK = "Tell me a story."
LOG_DEED = log_softmax(fixed_normal("deed", 0.0, 1.0, 8, 6), -1)
"""``[animal, deed]`` true log-probabilities."""


def _story(source: np.random.Generator, n: int) -> tuple[list[str], np.ndarray]:
    count = source.integers(1, 4, n)
    total = int(count.sum())
    time, look, animal, spot = (source.integers(len(x), size=total) for x in (TIMES, LOOKS, ANIMALS, SPOTS))
    deed = pick(source, np.exp(LOG_DEED[animal]))
    sizes = len(TIMES) * len(LOOKS) * len(ANIMALS) * len(SPOTS)
    exact = np.add.reduceat(LOG_DEED[animal, deed] - np.log(sizes), count.cumsum() - count) - np.log(3)
    rows = zip(*(column.tolist() for column in (time, look, animal, deed, spot)), strict=True)
    text = [f"In the {TIMES[t]}, the {LOOKS[k]} {ANIMALS[a]} {DEEDS[d]} {SPOTS[s]}." for t, k, a, d, s in rows]
    return [" ".join(text[end - k : end]) for end, k in zip(count.cumsum(), count, strict=True)], exact


def draw(source: np.random.Generator, n: int) -> list[Document]:
    """Draw n stories."""
    texts, exact = _story(source, n)
    return list(map(Document, texts, exact.tolist()))


def draw_chat(source: np.random.Generator, n: int) -> list[Document]:
    """Draw n chats: a request and a story."""
    texts, exact = _story(source, n)
    return list(map(Document, [chat(ASK, text) for text in texts], exact.tolist()))
