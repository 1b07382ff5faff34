"""Find the tokens of a continuation in the tokens of prompt and continuation, and check them by decoding.

Character offsets are not used: tokenizers that drop or normalise characters shift them. Instead the prompt is
tokenized alone, and the continuation begins where the tokens of the whole text differ from the prompt's. Its tokens
are then decoded, and must give the continuation's text.
"""

import unicodedata
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

from lightning_steer.errors import UserError

PARTIAL = "\ufffd"
"""Output of a tokenizer's decoder for bytes that are not a complete character."""


def continuation(tokenizer: Any, prompt: str, option: str, special: bool) -> tuple[list[int], list[int]]:
    """Return the token ids of the prompt and of the continuation in the text ``prompt + option``.

    A token that straddles the border belongs to the continuation.

    Args:
        tokenizer: a fast or slow tokenizer of transformers.
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
    """Return :func:`continuation` of each of several options after one prompt."""
    texts = _Texts(tokenizer, prompt)
    begin = _added_before(tokenizer, prompt + options[0]) if special else []
    tokens = []
    for option in options:
        ids = texts.ids(prompt + option)
        start = texts.start(ids)
        problem = texts.problem(ids, start, option)
        if problem:
            raise UserError(f"the continuation {option!r} after {prompt[-40:]!r} {problem}")
        if not begin and start == 0:  # the first token needs a context
            first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
            if first is None:
                raise UserError(
                    f"the continuation {option!r} follows nothing, and the tokenizer has no beginning of text"
                )
            tokens.append(([first], ids))
        else:
            tokens.append(([*begin, *ids[:start]], ids[start:]))
    return tokens


def beginning(tokenizer: Any) -> str:
    """Return the mark with which a text without a prompt begins; empty if the tokenizer puts one there or has none."""
    return "" if tokenizer("")["input_ids"] else tokenizer.bos_token or tokenizer.eos_token or ""


def prompt_tokens(tokenizer: Any, prompt: str, text: str) -> int:
    """Count the tokens of ``text`` that belong to ``prompt``, with which it begins, special tokens before it included.

    A token that straddles the border does not count.
    """
    texts = _Texts(tokenizer, prompt)
    return len(_added_before(tokenizer, text)) + texts.start(texts.ids(text))


def text_tokens(tokenizer: Any, texts: Sequence[str], special: bool) -> list[list[int]]:
    """Return the tokens of each text, with the special tokens before it and without those after it.

    Nothing is read, steered or continued after an end token.
    """
    bare_rows = [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    if not special:
        return bare_rows
    full_rows = [list(ids) for ids in tokenizer(list(texts))["input_ids"]]
    rows = []
    for ids, text_ids, text in zip(full_rows, bare_rows, texts, strict=True):
        ends = not text_ids and ids[1:][-1:] == [tokenizer.eos_token_id]
        rows.append(ids[:-1] if ends else ids[: _begin(ids, text_ids, text) + len(text_ids)] if text_ids else ids)
    return rows


def _added_before(tokenizer: Any, text: str) -> list[int]:
    """Return the special tokens that the tokenizer puts before a text."""
    ids = list(tokenizer(text)["input_ids"])
    return ids[: _begin(ids, list(tokenizer(text, add_special_tokens=False)["input_ids"]), text)]


def _begin(ids: list[int], text_ids: list[int], text: str) -> int:
    """Return the index of a text's first own token after the special tokens."""
    for start in range(len(ids) - len(text_ids) + 1):
        if ids[start : start + len(text_ids)] == text_ids:
            return start
    raise UserError(f"the tokenizer reads {text[-60:]!r} otherwise with its special tokens than without them")


class _Texts:
    """Tokenize a prompt, and decode tokens to text."""

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
        """Return the index of the first token that does not belong to the prompt alone."""
        pairs = zip(ids, self.prompt_ids, strict=False)
        start = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(self.prompt_ids)))
        if start == len(self.prompt_ids):
            return start
        # The text after the prompt changed the prompt's last tokens: advance while they decode to the prompt alone.
        prompt = self.text(self.prompt_ids)
        prompt_bare = self.bare(prompt)
        for end in range(start + 1, len(ids)):
            decoded = self.text(ids[:end])
            bare = self.bare(decoded)
            if prompt.startswith(decoded) or (prompt_bare.startswith(bare) and len(bare) < len(prompt_bare)):
                start = end
            elif not decoded.endswith(PARTIAL):
                break
        return start

    def problem(self, ids: list[int], start: int, option: str) -> str | None:
        """Return why ``ids[start:]`` are not the tokens of the option, as the end of a sentence; None if they are."""
        if start == len(ids):
            return "has no token of its own: the tokenizer knows none of its characters, so write it otherwise"
        prefix, decoded = self.text(ids[:start]).rstrip(PARTIAL), self.text(ids)
        continuation = _after(prefix, decoded)
        normalized = self.normalize(self.prompt + option)
        expected = _after(self.normalize(self.prompt), normalized)
        bare_read, bare_expected = self.bare(continuation), self.bare(expected)
        straddled = len(bare_read) - len(bare_expected)
        if not bare_expected:  # only blanks, which not every decoder keeps
            fits = not bare_read if start == len(self.prompt_ids) else len(ids) == start + 1
        elif start == len(self.prompt_ids):
            fits = bare_read == bare_expected
        else:
            first = next((i for i in range(start + 1, len(ids)) if not self.text(ids[:i]).endswith(PARTIAL)), len(ids))
            first_characters = len(self.bare(self.text(ids[:first]))) - len(self.bare(prefix))
            fits = bare_read.endswith(bare_expected) and (straddled == 0 or straddled < first_characters)
        if fits:
            return None
        return f"is read as {continuation!r}: the tokenizer does not know all of its characters, so write it otherwise"


def _after(prefix: str, text: str) -> str:
    """Return the rest of ``text`` after the characters that it shares with ``prefix``."""
    return text[sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prefix, text, strict=False))) :]


def _without_blanks(text: str) -> str:
    """Remove the blanks that decoders may write between tokens."""
    return "".join(text.replace("\u2581", " ").split())


def _without_form(text: str) -> str:
    """Remove blanks, case and Unicode forms: a slow tokenizer does not report its normalisation."""
    return _without_blanks(unicodedata.normalize("NFKC", text).casefold())
