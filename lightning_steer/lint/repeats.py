"""Find pairs that repeat or contradict each other, and held-out pairs that a method has seen.

Case and blanks make no difference.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from lightning_steer.lint.records import Finding, Pair
from lightning_steer.lint.texts import normalized

LABELS = 3
"""Pairs for each two continuations from which these are labels that every pair has, as in ``data.clusters``."""


def repeats(pairs: Sequence[Pair]) -> list[Finding]:
    """Return what repeats among the pairs: texts, pairs, prompts that differ in form only, and sides exchanged."""
    texts = [tuple(map(normalized, pair)) for pair in pairs]
    same = [i for i, (_, positive, negative) in enumerate(texts) if positive == negative]
    first: dict[tuple[str, ...], int] = {}
    again = [i for i, text in enumerate(texts) if first.setdefault(text, i) != i]
    exchanged = [i for i, (prompt, *sides) in enumerate(texts) if first.get((prompt, *sides[::-1]), i) < i]
    forms: defaultdict[str, set[str]] = defaultdict(set)
    for (prompt, *_), pair in zip(texts, pairs, strict=True):
        forms[prompt].add(pair[0].strip())
    formed = [i for i, (prompt, *_) in enumerate(texts) if len(forms[prompt]) > 1]
    return _findings(
        (
            (same, "duplicates", "the same text as positive and negative but for case and blanks", "make them differ"),
            (again, "duplicates", "a repetition of an earlier pair", "it would count twice: leave it out"),
            (exchanged, "duplicates", "an earlier pair with its sides exchanged", "the two cancel: leave one out"),
            (formed, "duplicates", "a prompt that differs from another one in case or blanks only",
             "a split takes them for two and may put one on each side: write them alike"),
        )
    )  # fmt: skip


def leaks(fitted: Sequence[Pair], held_out: Sequence[Pair]) -> list[Finding]:
    """Return which held-out pairs have a prompt or a continuation of those that are fitted to.

    Continuations that are labels, such as Yes and No, stand in all pairs on purpose.
    """
    prompts = {normalized(prompt) for prompt, *_ in fitted} - {""}
    seen = {normalized(text) for _, *sides in fitted for text in sides}
    every = [frozenset(map(normalized, sides)) for _, *sides in (*fitted, *held_out)]
    labels = len(every) >= LABELS * len(set(every))
    old = [i for i, pair in enumerate(held_out) if normalized(pair[0]) in prompts]
    known = [i for i, (_, *sides) in enumerate(held_out) if not labels and seen & set(map(normalized, sides))]
    remedy = "a method has seen it, so it is no new pair: leave it out on one side"
    return _findings(
        (
            (old, "leakage", "a prompt that is also fitted to", remedy),
            (known, "leakage", "a continuation that is also fitted to", remedy),
        ),
        len(held_out),
        "held-out pair",
    )


def _findings(
    rows: Iterable[tuple[list[int], str, str, str]], total: int | None = None, noun: str = "pair"
) -> list[Finding]:
    findings = []
    for places, feature, what, remedy in rows:
        if places:
            count = f"{len(places)} {noun}{'s have' if len(places) > 1 else ' has'}"
            count = (
                count if total is None else f"{len(places)} of {total} {noun}s {'have' if len(places) > 1 else 'has'}"
            )
            sentence = f"{count} {what} (the first is {noun} {places[0] + 1}): {remedy}."
            findings.append(Finding(feature, len(places), None, None, sentence))
    return findings
