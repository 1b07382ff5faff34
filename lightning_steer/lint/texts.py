"""Parts of pairs as texts: first words, labels such as (A), and the options of a prompt."""

import re

LABEL = re.compile(r"\(?([A-Z])(?:[).:](?=\s|$)|$)")
"""A continuation's label: (A), A), A., A: or A alone, perhaps with text after it."""
OPTION = re.compile(r"^[ \t]*\(?([A-Z])[).:][ \t]+(\S.*?)[ \t]*$", re.M)
"""An option of a prompt: a line that begins with a label."""
Span = tuple[int, int]


def normalized(text: str) -> str:
    """Return the text without differences of case and blanks."""
    return " ".join(text.casefold().split())


def first_word(text: str) -> str:
    """Return the first word of a text in lower case, without the punctuation after it."""
    word = text.split()[0].casefold()
    return word.rstrip(".,:;!?\"'") or word


def label(continuation: str) -> str | None:
    """Return the letter that a continuation is, or begins with; None if it has none."""
    match = LABEL.match(continuation.strip())
    return match[1] if match else None


def options(prompt: str) -> dict[str, Span]:
    """Return where the text of each option of a prompt stands; empty if a letter stands twice."""
    matches = list(OPTION.finditer(prompt))
    letters = [match[1] for match in matches]
    return {} if len(set(letters)) < len(letters) else {match[1]: match.span(2) for match in matches}


def answer(prompt: str, continuation: str) -> str:
    """Return what a continuation says: the text of its option where it is a letter alone, else itself."""
    bare, letter = continuation.strip(), label(continuation)
    if letter is None or len(bare) > 3:
        return bare
    span = options(prompt).get(letter)
    return bare if span is None else prompt[slice(*span)]


def place(prompt: str, continuation: str) -> int | None:
    """Return where the prompt offers a continuation, as a label or word for word; None if it does not."""
    letter = label(continuation)
    if letter is not None:
        span = options(prompt).get(letter)
        return None if span is None else span[0]
    text, within = continuation.strip().casefold(), prompt.casefold()
    start = within.find(text)
    while start >= 0 and (within[start - 1 : start].isalnum() or within[start + len(text) :][:1].isalnum()):
        start = within.find(text, start + 1)
    return None if start < 0 else start
