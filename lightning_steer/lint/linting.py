"""Lint contrast pairs before anything is fitted to them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_steer.errors import UserError
from lightning_steer.lint import tokens
from lightning_steer.lint.features import features, surface
from lightning_steer.lint.imbalance import imbalances
from lightning_steer.lint.records import Finding, LintReport, Pair
from lightning_steer.lint.repeats import leaks, repeats
from lightning_steer.lint.texts import normalized
from lightning_steer.pair_texts import origin


def lint_pairs(pairs: Sequence[Pair], held_out: Sequence[Pair] = (), tokenizer: Any = None) -> LintReport:
    """Look for repeats, leaks, and surface features that tell positives from negatives.

    Args:
        pairs: those to fit to: prompt, positive and negative, such as :class:`.ContrastPair`.
        held_out: those to judge on, if they are others: none of their prompts or continuations may be among ``pairs``.
        tokenizer: of the model, as transformers has it; without one, first words and characters take the place of
            tokens, and nothing is said about unknown ones.

    Raises:
        TypeError: a pair is no three texts.
        ValueError: there are no pairs, or a text is empty.
    """
    for name, rows in (("pairs", pairs), ("held_out", held_out)):
        _check(name, rows)
    if not pairs:
        raise UserError("there are no pairs: a lint needs at least one prompt with a positive and a negative")
    wrong: list[Finding] = []
    starts, sizes = surface(pairs)
    if tokenizer is not None:
        starts, sizes, wrong = tokens.read(pairs, tokenizer)
    cluster = np.unique([normalized(origin(*pair)) for pair in pairs], return_inverse=True)[1]
    imbalanced = imbalances(features(pairs, starts, sizes, "character" if tokenizer is None else "token"), cluster)
    raised = [Finding(i.feature, i.share.n, i.share, i.p, i.sentence) for i in imbalanced if i.raised]
    findings = [*repeats(pairs), *leaks(pairs, held_out), *wrong, *raised]
    return LintReport(len(pairs), int(cluster.max()) + 1, imbalanced, findings)


def _check(name: str, pairs: Sequence[Pair]) -> None:
    for number, pair in enumerate(pairs, 1):
        if isinstance(pair, str) or len(pair) != 3 or not all(isinstance(text, str) for text in pair):
            raise TypeError(
                f"{name}, pair {number} is {str(pair)[:80]!r}, not a prompt, a positive and a negative text"
            )
        if not all(text.strip() for text in pair[1:]):
            raise UserError(f"{name}, pair {number} has an empty continuation: {tuple(pair)}")
