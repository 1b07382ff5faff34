"""Exchange the letters of questions with lettered options: a vector for the letter then does the opposite."""

from collections.abc import Sequence

from lightning_steer.errors import UserError
from lightning_steer.lint.records import Pair
from lightning_steer.lint.texts import LABEL, label, options


def swapped(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs with the texts of two options exchanged, and the letters of the continuations.

    ``(A) tea, (B) milk`` with the positive ``(A)`` becomes ``(A) milk, (B) tea`` with the positive ``(B)``: the answer
    stays, its letter and its place change. Every option is a line of the prompt that begins with its letter, written
    ``(A)``, ``A)``, ``A.`` or ``A:``; continuations are a letter, perhaps with text after it. Other options stay.

    Raises:
        ValueError: naming a pair that is not written so.
    """
    return [_swapped(f"pair {number}", *pair) for number, pair in enumerate(pairs, 1)]


def _swapped(name: str, prompt: str, positive: str, negative: str) -> Pair:
    letters, spans = (label(positive), label(negative)), options(prompt)
    if letters[0] is None or letters[1] is None or letters[0] == letters[1]:
        raise UserError(
            f"{name}: expected continuations that begin with two different letters, such as '(A)' and '(B)', not "
            f"{positive[:40]!r} and {negative[:40]!r}"
        )
    for letter in letters:
        if letter not in spans:
            raise UserError(
                f"{name}: expected one line of the prompt to begin with '({letter})' and the option's text, as one for "
                f"every other option: {prompt[-60:]!r}"
            )
    first, second = sorted((spans[letters[0]], spans[letters[1]]))
    exchanged = (
        f"{prompt[: first[0]]}{prompt[slice(*second)]}{prompt[first[1] : second[0]]}{prompt[slice(*first)]}"
        f"{prompt[second[1] :]}"
    )
    return exchanged, _with_letter(positive, letters[1]), _with_letter(negative, letters[0])


def _with_letter(continuation: str, letter: str) -> str:
    """Return a continuation with another letter in the place of its own."""
    match = LABEL.match(continuation.strip())
    assert match is not None
    bare = continuation.strip()
    return f"{bare[: match.start(1)]}{letter}{bare[match.end(1) :]}"
