"""Surface features of pairs: for each, which side of every pair has it."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_steer.lint.records import Pair
from lightning_steer.lint.texts import answer, first_word, label, place

LEAST = 6
"""Pairs, or clusters of them, that must differ in a feature: of five even 5 : 0 has a p-value of .0625."""
Sides = tuple[float, float]
"""A number of the positive and of the negative."""


class Feature(NamedTuple):
    """A surface feature and who has it."""

    name: str
    claim: str
    """What is true of a pair whose positive has it, as a clause."""
    among: str
    """The pairs whose sides differ in it."""
    signs: NDArray
    """``[n]`` 1 where the positive has it (or more of it), -1 where the negative has, 0 where they do not differ."""
    remedy: str


def features(
    pairs: Sequence[Pair], starts: Sequence[tuple[str, str]], sizes: Sequence[Sides], unit: str
) -> list[Feature]:
    """Return letters, position, length and first words or tokens, each if any pair differs in it.

    Args:
        pairs: the pairs.
        starts: first word or token of the positive and of the negative of each pair.
        sizes: length of both.
        unit: ``character`` or ``token``.
    """
    labels = [(label(positive), label(negative)) for _, positive, negative in pairs]
    lettered = [sides if None not in sides else (None, None) for sides in labels]
    places = [(place(prompt, positive), place(prompt, negative)) for prompt, positive, negative in pairs]
    where = [(0, 0) if None in (first, second) else (-(first or 0), -(second or 0)) for first, second in places]
    mean = np.mean(sizes, 0)
    kind = "word" if unit == "character" else "token"
    exchange = "exchange the options in half of the pairs"
    every = [
        *(
            Feature(f"letter {x}", f"the positive is the answer {x}", "pairs in which one side is", signs, exchange)
            for x, signs in _one_of(lettered)
        ),
        Feature("position", "the prompt offers the positive first", "pairs that it offers both of",
                _signs(where), exchange),
        Feature("length", "the positive is the longer text", "pairs of unequal length "
                f"(on average {mean[0]:.1f} against {mean[1]:.1f} {unit}s)", _signs(sizes),
                "write both sides about equally long"),
        *(
            Feature(f"first {kind} {x!r}", f"the positive begins with {x!r}", "pairs in which one side does", signs,
                    "let both sides begin alike, unless this beginning is what you want")
            for x, signs in _one_of(starts, LEAST)
        ),
    ]  # fmt: skip
    return [feature for feature in every if feature.signs.any()]


def surface(pairs: Sequence[Pair]) -> tuple[list[tuple[str, str]], list[Sides]]:
    """Return first words and lengths in characters of both sides of every pair, for lack of a tokenizer."""
    words = [(first_word(positive), first_word(negative)) for _, positive, negative in pairs]
    return words, [_both(pair, len) for pair in pairs]


def _both(pair: Pair, size: Callable[[str], int]) -> Sides:
    return size(answer(pair[0], pair[1])), size(answer(pair[0], pair[2]))


def _signs(sides: Sequence[Sides]) -> NDArray:
    return np.array([(more > less) - (more < less) for more, less in sides], dtype=np.int64)


def _one_of(sides: Sequence[tuple[str | None, str | None]], least: int = 1) -> list[tuple[str, NDArray]]:
    """Return each value that one side of ``least`` pairs has, the commonest first, with who has it."""
    counts = Counter(x for pair in sides if pair[0] != pair[1] for x in pair if x is not None)
    order = sorted((x for x in counts if counts[x] >= least), key=lambda x: (-counts[x], x))
    return [(x, np.array([(a == x) - (b == x) for a, b in sides], dtype=np.int64)) for x in order]
