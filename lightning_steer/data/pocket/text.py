"""The pocket language's form: documents, chats, tokenizer, and random numbers.

The pocket language is generated text with a known ground truth. Each sub-corpus has one simple rule, and every document
comes with its exact log-probability, so a model's held-out loss can be compared with the language's entropy.
"""

import random
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNK, USER, BOT, END = SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<bot>", "<end>")
MARKS = (".", ",", "?", ":")
SYSTEM = "You are a kind helper."
"""The system sentence of every chat, unless another is given."""
THANKS = "Thank you."
"""Begins every reply; the template writes it, so that the next token is the first of the answer."""
ITEMS = 2**63
"""First seed of all evaluation items; no training run uses it."""
CHAT_TEMPLATE = (
    "{{ bos_token }} {% if messages[0].role == 'system' %}{{ messages[0].content }}{% else %}" + SYSTEM + "{% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'user' %} " + USER + " {{ message.content }} " + END + ""
    "{% elif message.role == 'assistant' %} " + BOT + " " + THANKS + " {{ message.content }} " + END + ""
    "{% elif message.role != 'system' or not loop.first %}{{ raise_exception('roles are system, user, assistant') }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} " + BOT + " " + THANKS + "{% endif %}"
)


class Document(NamedTuple):
    """One text of the language."""

    text: str
    """Without beginning and end marks."""
    logp: float
    """Exact log-probability in nats of the whole text, its end included, summed over hidden variables."""


def chat(user: str, reply: str | None = None) -> str:
    """Return a one-turn chat as the tuned model reads it, begin mark included; without a reply, only its prompt."""
    prompt = f"{BOS} {SYSTEM} {USER} {user} {END} {BOT} {THANKS}"
    return prompt if reply is None else f"{prompt} {reply} {END}"


def source(*seeds: int) -> np.random.Generator:
    """Return a random generator for a tuple of seeds, the same on every process."""
    return np.random.default_rng(np.random.SeedSequence(seeds))


def pick(source: np.random.Generator, probability: np.ndarray) -> np.ndarray:
    """Draw one index per row with the row's probabilities: ``[n, k] -> [n]``."""
    edges = probability.cumsum(-1)
    return (source.random((len(edges), 1)) * edges[:, -1:] >= edges[:, :-1]).sum(-1)


def fixed_normal(seed: str, mean: float, deviation: float, *shape: int) -> np.ndarray:
    """Return normal numbers that define the language: always the same, independent of numpy's version."""
    generator, normal = random.Random(seed), NormalDist(mean, deviation)  # noqa: S311
    return np.array([normal.inv_cdf(generator.random()) for _ in range(int(np.prod(shape)))]).reshape(shape)


def words_of(*texts: str) -> list[str]:
    """Return the different tokens of texts in order of appearance: words and punctuation marks."""
    for mark in MARKS:
        texts = tuple(text.replace(mark, f" {mark} ") for text in texts)
    return list(dict.fromkeys(word for text in texts for word in text.split()))


def tokenizer(words: list[str], chat_template: str | None = None) -> "PreTrainedTokenizerFast":
    """Return a word-level tokenizer over these words.

    Punctuation follows the word before without a blank, and is a token of its own. By default the tokenizer begins a
    text with ``<bos>``, as Llama's and Gemma's do.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*SPECIALS, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    # the WordPiece decoder puts a blank before every token but the first; then punctuation gives it up again
    backend.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Replace(Regex(r"^ (?=[.,?:]$)"), "")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=PAD,
        additional_special_tokens=[USER, BOT, END],
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        chat_template=chat_template,
    )
