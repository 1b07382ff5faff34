"""How the pocket language is written: documents, chat form, tokenizer, and the source of randomness.

The pocket language is generated text with planted truth: sub-corpora with one simple rule each, whose every document
comes with its exact log-probability, so a model's held-out loss can be compared with the language's own entropy.
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
"""What every reply begins with; the template writes it, so that the next token is the first of the answer itself."""
ITEMS = 2**63
"""Begins the seeds of all items for evaluation: no training run has such a seed."""
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
    """Exact log-probability in nats of the whole text, its end included, summed over all that is hidden."""


def chat(user: str, reply: str | None = None) -> str:
    """A chat of one turn as the tuned model reads it, begin mark included; without a reply, the prompt for one."""
    prompt = f"{BOS} {SYSTEM} {USER} {user} {END} {BOT} {THANKS}"
    return prompt if reply is None else f"{prompt} {reply} {END}"


def source(*seeds: int) -> np.random.Generator:
    """A random source of its own for every tuple of seeds, the same on every process."""
    return np.random.default_rng(np.random.SeedSequence(seeds))


def pick(source: np.random.Generator, probability: np.ndarray) -> np.ndarray:
    """``[n, k] -> [n]``: one index a row, drawn with the row's probabilities."""
    edges = probability.cumsum(-1)
    return (source.random((len(edges), 1)) * edges[:, -1:] >= edges[:, :-1]).sum(-1)


def planted(seed: str, mean: float, deviation: float, *shape: int) -> np.ndarray:
    """Normal numbers that belong to the language itself: the same for ever, whatever library draws the texts."""
    uniform, normal = random.Random(seed), NormalDist(mean, deviation)  # noqa: S311
    return np.array([normal.inv_cdf(uniform.random()) for _ in range(int(np.prod(shape)))]).reshape(shape)


def words_of(*texts: str) -> list[str]:
    """The tokens of some texts in order of appearance: words and punctuation marks."""
    for mark in MARKS:
        texts = tuple(text.replace(mark, f" {mark} ") for text in texts)
    return list(dict.fromkeys(word for text in texts for word in text.split()))


def tokenizer(words: list[str], chat_template: str | None = None) -> "PreTrainedTokenizerFast":
    """A word-level tokenizer over these words.

    Text is written as people write it: punctuation stands at the word before, and is a token of its own. It begins a
    text with ``<bos>`` unless told otherwise, as Llama's and Gemma's do.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*SPECIALS, *words])}
    rust = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    rust.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    # the WordPiece decoder puts a blank before every token but the first; then punctuation gives it up again
    rust.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Replace(Regex(r"^ (?=[.,?:]$)"), "")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=rust,
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
