"""The texts of a contrast pair: what is read after what, what ties pairs, and pairs from two text files."""

from itertools import takewhile
from pathlib import Path

from lightning_steer import text_files
from lightning_steer.errors import UserError


def origin(prompt: str, positive: str, negative: str) -> str:
    """Return what pairs that are not independent share: the prompt; a pair without one shares nothing with others."""
    return prompt if prompt.strip() else f"\0{positive}\0{negative}"


def options(prompt: str, positive: str, negative: str) -> tuple[str, str]:
    """Return both continuations as they are read, the positive one first: after a blank if there is a prompt."""
    blank = " " if prompt else ""
    return f"{blank}{positive}", f"{blank}{negative}"


def read_two_texts(positives: str | Path, negatives: str | Path) -> list[tuple[str, str, str]]:
    """Read (prompt, positive, negative) from two text files: line n of one and line n of the other make a pair.

    The words with which both lines begin are the prompt, which may be empty. Blank lines are skipped.

    Args:
        positives: a text a line, which shows what is wanted.
        negatives: its opposite, in the same order.
    """
    lines = [text_files.read(path).split("\n") for path in (positives, negatives)]
    sides = [[line.split() for line in each if line.strip()] for each in lines]
    if len(sides[0]) != len(sides[1]) or not sides[0]:
        raise UserError(
            f"{positives} has {len(sides[0])} lines of text and {negatives} has {len(sides[1])}: line n of one must be "
            "the opposite of line n of the other"
        )
    pairs = []
    for number, (positive, negative) in enumerate(zip(*sides, strict=True), 1):
        alike = sum(1 for _ in takewhile(lambda words: words[0] == words[1], zip(positive, negative, strict=False)))
        if alike in (len(positive), len(negative)):
            raise UserError(
                f"line {number} of {positives} and of {negatives}: {' '.join(positive)!r} and {' '.join(negative)!r} "
                "must differ before one of them ends"
            )
        pairs.append((" ".join(positive[:alike]), " ".join(positive[alike:]), " ".join(negative[alike:])))
    return pairs
