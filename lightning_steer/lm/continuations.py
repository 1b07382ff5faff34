"""Find the tokens of a continuation in the tokens of prompt and continuation, and read them back to be sure.

Character offsets are not used: tokenizers that drop or normalise characters shift them. The prompt is tokenized by
itself instead, and the continuation begins where the tokens of the whole text leave those of the prompt. Its tokens
are then decoded, and must say what the continuation says.
"""

import unicodedata
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

PARTIAL = "\ufffd"
"""What a decoder writes for bytes that are not yet a whole character."""


def continuation(tokenizer: Any, prompt: str, option: str, special: bool) -> tuple[list[int], list[int]]:
    """Return the token ids of the prompt and of the continuation in the text ``prompt + option``.

    A token that straddles the border belongs to the continuation.

    Args:
        tokenizer: fast or slow, as transformers has it.
        prompt: text before the continuation; may be empty.
        option: the continuation.
        special: whether the tokenizer adds its special tokens.

    Raises:
        ValueError: the continuation has no token, or its tokens do not read back as the continuation.
    """
    return continuations(tokenizer, prompt, [option], special)[0]


def continuations(
    tokenizer: Any, prompt: str, options: Sequence[str], special: bool
) -> list[tuple[list[int], list[int]]]:
    """Return what :func:`continuation` returns for each of several options after one prompt."""
    texts = _Texts(tokenizer, prompt)
    begin = _added_before(tokenizer, prompt + options[0]) if special else []
    found = []
    for option in options:
        ids = texts.ids(prompt + option)
        start = texts.start(ids)
        problem = texts.problem(ids, start, option)
        if problem:
            raise ValueError(f"the continuation {option!r} after {prompt[-40:]!r} {problem}")
        if not begin and start == 0:  # its first token must be predicted from something
            first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
            if first is None:
                raise ValueError(
                    f"the continuation {option!r} follows nothing, and the tokenizer has no beginning of text"
                )
            found.append(([first], ids))
        else:
            found.append(([*begin, *ids[:start]], ids[start:]))
    return found


def prompt_tokens(tokenizer: Any, prompt: str, text: str) -> int:
    """Return how many tokens of ``text``, with the special ones before it, are of the prompt that it begins with.

    A token that straddles the border is not.
    """
    texts = _Texts(tokenizer, prompt)
    return len(_added_before(tokenizer, text)) + texts.start(texts.ids(text))


def text_tokens(tokenizer: Any, texts: Sequence[str], special: bool) -> list[list[int]]:
    """Return the tokens of each text, with the special ones before it and without those after it.

    Behind an end token nothing is to be read, steered or continued.
    """
    bare = [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    if not special:
        return bare
    whole = [list(ids) for ids in tokenizer(list(texts))["input_ids"]]
    kept = []
    for ids, own, text in zip(whole, bare, texts, strict=True):
        ends = not own and ids[1:][-1:] == [tokenizer.eos_token_id]
        kept.append(ids[:-1] if ends else ids[: _begin(ids, own, text) + len(own)] if own else ids)
    return kept


def _added_before(tokenizer: Any, text: str) -> list[int]:
    """The special tokens that the tokenizer puts before a text; those after it are not part of a continuation."""
    whole = list(tokenizer(text)["input_ids"])
    return whole[: _begin(whole, list(tokenizer(text, add_special_tokens=False)["input_ids"]), text)]


def _begin(whole: list[int], bare: list[int], text: str) -> int:
    """Where a text's own tokens begin among those with special ones."""
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return start
    raise ValueError(f"the tokenizer reads {text[-60:]!r} otherwise with its special tokens than without them")


class _Texts:
    """A prompt's own tokens, and the texts that tokens stand for."""

    def __init__(self, tokenizer: Any, prompt: str) -> None:
        self.tokenizer, self.prompt = tokenizer, prompt
        self.prompt_ids = self.ids(prompt)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        normalizer = backend.normalizer if backend is not None else None
        self.normalize: Callable[[str], str] = str if normalizer is None else normalizer.normalize_str
        self.bare = _without_blanks if backend is not None else _without_form

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) if ids else ""

    def start(self, ids: list[int]) -> int:
        """The first token that is not of the prompt alone."""
        pairs = zip(ids, self.prompt_ids, strict=False)
        start = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(self.prompt_ids)))
        if start == len(self.prompt_ids):
            return start
        # The text that follows has changed how the prompt's end is cut: go on while nothing but the prompt is read.
        text = self.text(self.prompt_ids)
        inside = self.bare(text)
        for end in range(start + 1, len(ids)):
            read = self.text(ids[:end])
            bare = self.bare(read)
            if text.startswith(read) or (inside.startswith(bare) and len(bare) < len(inside)):
                start = end
            elif not read.endswith(PARTIAL):
                break
        return start

    def problem(self, ids: list[int], start: int, option: str) -> str | None:
        """What is wrong with ``ids[start:]`` as the tokens of the option, to be said after its name; or None."""
        if start == len(ids):
            return "has no token of its own: the tokenizer knows none of its characters, so write it otherwise"
        before, whole = self.text(ids[:start]).rstrip(PARTIAL), self.text(ids)
        read = _after(before, whole)
        normal = self.normalize(self.prompt + option)
        meant = _after(self.normalize(self.prompt), normal)
        bare_read, bare_meant = self.bare(read), self.bare(meant)
        straddled = len(bare_read) - len(bare_meant)
        if not bare_meant:  # nothing but blanks, which not every decoder keeps
            fits = not bare_read if start == len(self.prompt_ids) else len(ids) == start + 1
        elif start == len(self.prompt_ids):
            fits = bare_read == bare_meant
        else:
            first = next((i for i in range(start + 1, len(ids)) if not self.text(ids[:i]).endswith(PARTIAL)), len(ids))
            within = len(self.bare(self.text(ids[:first]))) - len(self.bare(before))
            fits = bare_read.endswith(bare_meant) and (straddled == 0 or straddled < within)
        if fits:
            return None
        return f"is read as {read!r}: the tokenizer does not know all of its characters, so write it otherwise"


def _after(before: str, whole: str) -> str:
    """What of ``whole`` follows the characters that it shares with ``before``."""
    return whole[sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, whole, strict=False))) :]


def _without_blanks(text: str) -> str:
    """The text without what decoders write, or leave out, between tokens."""
    return "".join(text.replace("\u2581", " ").split())


def _without_form(text: str) -> str:
    """As :func:`_without_blanks`, without case and forms: a slow tokenizer does not tell what it normalises."""
    return _without_blanks(unicodedata.normalize("NFKC", text).casefold())
