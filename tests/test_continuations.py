"""Tokens of a continuation read back as the continuation, for any kind of tokenizer and any text, or are refused.

What each tokenizer makes of a text is said here once more, without it: by Python's own Unicode functions.
"""

import random
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from lightning_steer.lm.continuations import continuation, continuations

PIECES = (
    *("hello", "ham", "Spam", "no", "Yes", "the cat", "don't", "it is 42", "a", "I", ":", "?", ".", ","),
    *("\u201cquoted\u201d", "\u2018", "\u2019s", "\u2014", "\u2026", "caf\u00e9", "cafe\u0301", "\u0301", "na\u00efve"),
    *(
        "\u00df",
        "\u0130",
        "\ufb01ne",
        "\uff21\uff22",
        "\u2460",
        "\U0001f600",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    ),
    *("\U0001f44d\U0001f3fd", "\u200d", "\ufe0f", "\u65e5\u672c\u8a9e", "\u4f60\u597d", "\ud55c\uad6d"),
    *("\u0645\u0631\u062d\u0628\u0627", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u00a0", "\u3000", "\u2581"),
)
GLUE = ("", " ", " ", " ", "  ", "\n", "\t", "\n\n")
PLAIN = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:?'\n\t"
FORMS = [form for piece in PIECES for form in (piece, piece.lower(), unicodedata.normalize("NFKC", piece).lower())]
EVERY = sorted({*"".join(FORMS), *PLAIN})
N = 500


def text(chance: random.Random, most: int) -> str:
    """Words, marks and signs with and without blanks between them, before and behind; sometimes nothing."""
    parts = [chance.choice(GLUE)]
    for _ in range(chance.randint(0, most)):
        parts += [chance.choice(PIECES[:14] if chance.random() < 0.5 else PIECES), chance.choice(GLUE)]
    return "".join(parts)


def cases() -> list[tuple[str, str]]:
    """500 prompts, two options each; every tenth prompt is empty."""
    chance = random.Random(12)
    prompts = ["" if i % 10 == 0 else text(chance, 6) for i in range(N)]
    return [(prompt, option) for prompt in prompts for option in (text(chance, 3), " " + chance.choice(PIECES))]


def wrap(inner: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", **special)


def begins(inner: Tokenizer) -> Tokenizer:
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    return inner


def characters(alphabet: list[str] | str, *more: str) -> dict[str, int]:
    return {token: i for i, token in enumerate(dict.fromkeys(["<s>", "</s>", "<unk>", *alphabet, *more]))}


def drops_unknown() -> PreTrainedTokenizerFast:
    """BPE without an unknown token, as some small models have it: what is not in its alphabet leaves no trace."""
    merges = [("h", "a"), ("ha", "m"), ("n", "o"), (" ", "ham"), ("t", "h"), ("th", "e")]
    inner = Tokenizer(models.BPE(characters(PLAIN, *map("".join, merges)), merges))
    inner.decoder = decoders.Fuse()
    return wrap(begins(inner))


def normalises(form: str) -> PreTrainedTokenizerFast:
    merges = [("h", "a"), ("ha", "m"), ("n", "o"), (" ", "ham"), ("t", "h"), ("th", "e")]
    inner = Tokenizer(models.BPE(characters(EVERY, *map("".join, merges)), merges))
    steps: list[Any] = [normalizers.NFKC(), normalizers.Lowercase()]
    inner.normalizer = normalizers.Sequence(steps if form == "both" else steps[:1] if form == "NFKC" else steps[1:])
    inner.decoder = decoders.Fuse()
    return wrap(begins(inner))


def byte_level(prefix: bool) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"], show_progress=False
    )
    inner.train_from_iterator([" ".join(PIECES)] * 20, trainer)
    return wrap(begins(inner) if prefix else inner)


def unigram(scheme: str, fallback: bool = False) -> PreTrainedTokenizerFast:
    words = ("\u2581", "\u2581ham", "\u2581hello", "\u2581no", "llo", "the", "am", "Spam")
    pieces = [("<s>", 0.0), ("</s>", 0.0), ("<unk>", -9.0)]
    pieces += [(f"<0x{byte:02X}>", -8.0) for byte in range(256) if fallback]
    known = [c for c in PLAIN if c != " "]
    pieces += [(c, -5.0) for c in known] + [(w, -2.0 - 0.1 * len(w)) for w in words]
    inner = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=fallback))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)  # type: ignore[arg-type]
    metaspace = decoders.Metaspace(prepend_scheme=scheme)  # type: ignore[arg-type]
    inner.decoder = (
        decoders.Sequence([decoders.ByteFallback(), metaspace, decoders.Fuse()]) if fallback else metaspace  # type: ignore[list-item]
    )
    return wrap(begins(inner), unk_token="<unk>")


def wordpiece() -> PreTrainedTokenizerFast:
    letters = [c for c in PLAIN.lower() if not c.isspace()]
    vocabulary = characters(letters, *(f"##{c}" for c in letters), "hello", "ham", "##am", "the", "[UNK]")
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(cleanup=False)
    return wrap(begins(inner), unk_token="[UNK]")


class Slow(PreTrainedTokenizer):
    """Letter by letter, in Python: no offsets, and no word about what it normalises."""

    def __init__(self, lower: bool, drop: bool) -> None:
        self.lower, self.drop, self.number = lower, drop, characters(PLAIN)
        super().__init__(bos_token="<s>", eos_token="</s>", unk_token="<unk>")

    @property
    def vocab_size(self) -> int:
        return len(self.number)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.number)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        read = text.lower() if self.lower else text
        return [c for c in read if c in self.number or not self.drop]

    def _convert_token_to_id(self, token: str) -> int:
        return self.number.get(token, 2)

    def _convert_id_to_token(self, index: int) -> str:
        return list(self.number)[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)


def nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def bert(text: str) -> str:
    """Lower case, without accents and control characters, as BERT reads it."""
    cleaned = [c for c in text if c in "\t\n\r" or unicodedata.category(c) not in ("Cc", "Cf", "Co")]
    return "".join(c for c in unicodedata.normalize("NFD", "".join(cleaned)) if unicodedata.category(c) != "Mn").lower()


class Kind(NamedTuple):
    make: Callable[[], Any]
    read: Callable[[str], str] = str
    """What of a text its tokens say, but for blanks."""
    known: str = ""
    """The characters that it knows; empty for all."""


KINDS = {
    "drops unknown characters": Kind(drops_unknown, known=PLAIN),
    "NFKC and lower case": Kind(lambda: normalises("both"), lambda text: nfkc(text).lower()),
    "NFKC": Kind(lambda: normalises("NFKC"), nfkc),
    "lower case": Kind(lambda: normalises("lower"), str.lower),
    "byte-level BPE": Kind(lambda: byte_level(False)),
    "byte-level BPE with a prefix space": Kind(lambda: byte_level(True)),
    "Unigram with a prefix space": Kind(lambda: unigram("always"), known=PLAIN + "\u2581"),
    "Unigram without a prefix space": Kind(lambda: unigram("never"), known=PLAIN + "\u2581"),
    "Unigram with bytes": Kind(lambda: unigram("always", True)),
    "WordPiece": Kind(wordpiece, bert, known=PLAIN),
    "slow": Kind(lambda: Slow(False, False), known=PLAIN),
    "slow, lower case, drops": Kind(lambda: Slow(True, True), str.lower, known=PLAIN),
}


def blank_free(text: str) -> str:
    return "".join(text.replace("\u2581", " ").split())


@pytest.mark.parametrize("name", KINDS)
def test_option_tokens_read_back_as_the_option_or_are_refused(name: str) -> None:
    kind = KINDS[name]
    tokenizer, refused, wrong = kind.make(), 0, []
    for prompt, option in cases():
        meant = blank_free(kind.read(option))
        unknown = set(kind.read(option)) - set(kind.known or kind.read(option))
        try:
            prefix, rest = continuation(tokenizer, prompt, option, True)
        except ValueError as error:
            refused += 1
            if not unknown and meant:
                wrong.append((prompt, option, f"refused without need: {error}"))
            elif "has no token of its own" not in str(error) and "write it otherwise" not in str(error):
                wrong.append((prompt, option, str(error)))
            continue
        before, whole = (
            blank_free(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
            for ids in (prefix, prefix + rest)
        )
        read_back = whole[len(before.rstrip("\ufffd")) :]
        straddled = len(read_back) - len(meant)
        if set(blank_free("".join(unknown))) or not prefix or not rest:
            wrong.append((prompt, option, f"accepted {rest}"))
        elif not read_back.endswith(meant) or straddled >= max(1, len(blank_free(tokenizer.decode(rest[:1])))):
            wrong.append((prompt, option, f"reads {read_back!r}"))
    print(f"{name}: {refused} of {2 * N} refused")
    assert not wrong, f"{len(wrong)} wrong, such as {wrong[:3]}"
    assert refused / (2 * N) < (0.6 if kind.known else 0.02)


@pytest.mark.parametrize("quotes", [1, 2, 8, 12])
def test_dropped_characters_before_an_option_do_not_shift_it(quotes: int) -> None:
    tokenizer = drops_unknown()
    prefix, rest = continuation(tokenizer, "He said " + "\u201c\u201d" * quotes + " it:", " the ham", True)
    assert tokenizer.decode(rest) == " the ham"
    assert tokenizer.decode(prefix) == "<s>He said  it:"


@pytest.mark.parametrize("option", ["\u201c\u201d", " \U0001f600", "\u65e5"])
def test_an_option_without_a_known_character_is_refused_by_what_is_wrong(option: str) -> None:
    with pytest.raises(ValueError, match=r"continuation .* write it otherwise"):
        continuation(drops_unknown(), "the ham", option, True)


def test_two_options_share_the_prompt() -> None:
    tokenizer = byte_level(True)
    both = continuations(tokenizer, "the cat", [" ham", "s"], True)
    assert both == [continuation(tokenizer, "the cat", option, True) for option in (" ham", "s")]
