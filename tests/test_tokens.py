"""Where a continuation begins: for any tokenizer and template, the same as single forward passes would have it."""

import pytest
import torch
from decoders import decoder, letters
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lightning_steer.lm.continuations import continuation
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice, batches, collate, rows_of

VOCABULARY = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}


def merged(*words: str) -> dict[str, int]:
    every = [chr(c) for c in range(97, 123)] + list(words)
    return {**VOCABULARY, **{word: i + 4 for i, word in enumerate(dict.fromkeys(every))}}


def wrap(inner: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", **special)


def byte_level(bos: bool) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {**VOCABULARY, **{c: i + 4 for i, c in enumerate(alphabet)}}
    for pair in ("he", "Ġh", "am", "Ġham"):
        vocabulary[pair] = len(vocabulary)
    inner = Tokenizer(models.BPE(vocabulary, [("h", "e"), ("Ġ", "h"), ("a", "m"), ("Ġh", "am")], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        return wrap(inner, bos_token="<s>", eos_token="</s>")
    return wrap(inner, eos_token="</s>")


def sentencepiece_like() -> PreTrainedTokenizerFast:
    words = ("▁", "▁h", "▁ham", "▁hello", "▁no", ":", "?")
    vocabulary = [("<pad>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("<unk>", -9.0)]
    vocabulary += [(chr(c), -5.0) for c in range(97, 123)] + [(w, -2.0 - 0.1 * len(w)) for w in words]
    inner = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return wrap(inner, bos_token="<s>", eos_token="</s>")


def with_end_of_text() -> PreTrainedTokenizerFast:
    tokenizer = letters()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


def words() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel(merged("hello", "there", "ham", "spam", "no", ":"), unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return wrap(inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


class Slow:
    """A tokenizer that knows no offsets."""

    is_fast = False
    bos_token_id, eos_token_id, pad_token_id, unk_token_id = 1, 2, 0, 3

    def __call__(self, text: str, add_special_tokens: bool = True, **_: object) -> dict:
        return {"input_ids": letters()(text, add_special_tokens=add_special_tokens)["input_ids"]}

    def decode(self, ids: list[int], **settings: object) -> str:
        return letters().decode(ids, **settings)


TOKENIZERS = {
    "letters": letters,
    "letters without bos": lambda: letters(bos=False),
    "byte-level BPE with bos": lambda: byte_level(True),
    "byte-level BPE without bos": lambda: byte_level(False),
    "sentencepiece-like": sentencepiece_like,
    "appends end of text": with_end_of_text,
    "words": words,
    "no pad token": lambda: letters(pad=False),
    "no offsets": Slow,
}
CASES = [("hello", " ham"), ("hello ", "ham"), ("a : ham ? :", " ham"), ("h", "am"), ("", "hello"), ("no", " ham spam")]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(("prompt", "option"), CASES)
def test_the_continuation_is_the_rest_of_the_whole_texts_tokens(name: str, prompt: str, option: str) -> None:
    tokenizer = TOKENIZERS[name]()
    prefix, rest = continuation(tokenizer, prompt, option, True)
    whole = list(tokenizer(prompt + option)["input_ids"])
    if name == "appends end of text":
        assert whole.pop() == 2
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    assert prefix + rest in (whole, [first, *whole])  # where nothing comes before it, the beginning of text does
    assert prefix
    assert rest
    if hasattr(tokenizer, "decode") and "words" not in name and "sentence" not in name:
        text = tokenizer.decode(rest).replace(" ", "")
        assert text.endswith(option.replace(" ", ""))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_scores_agree_with_single_forward_passes(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    llm = LLM("llama").adopt(decoder("llama", vocab_size=320), tokenizer)
    questions = [MultipleChoice("hello", (" ham", " no")), MultipleChoice("no : hello", (" ham", " spam"))]
    scores = llm.scores(questions)[0]
    for i, question in enumerate(questions):
        for j, option in enumerate(question.choices):
            prefix, rest = continuation(tokenizer, question.prompt, option, True)
            logp = llm.model(torch.tensor([prefix + rest])).logits[0].log_softmax(-1)
            expected = sum(logp[len(prefix) - 1 + k, token] for k, token in enumerate(rest))
            torch.testing.assert_close(scores[i, j], expected, rtol=1e-5, atol=1e-5)


CHATML = (
    "{% for m in messages %}<s>{{ m['role'] }}:{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


def test_a_chat_template_brings_its_own_special_tokens() -> None:
    tokenizer = letters()
    tokenizer.chat_template = CHATML
    llm = LLM("llama", chat=True, system="be kind").adopt(decoder("llama"), tokenizer)
    text = llm.prompt("hello")
    assert text == "<s>system:be kind</s><s>user:hello</s><s>assistant:"
    (row,) = llm.rows([MultipleChoice("hello", (" yes", " no"))])
    assert row.ids[: row.prompt].count(1) == 3  # and none added before them


def test_options_share_the_prompts_tokens_only_if_they_agree_on_them() -> None:
    tokenizer = byte_level(True)
    shared = rows_of(tokenizer, 0, MultipleChoice("x", (" ham", " no")), True, True)
    assert len(shared) == 1
    split = rows_of(tokenizer, 0, MultipleChoice("h", ("e", "z")), True, True)  # "he" is one token: another prompt
    assert len(split) == 2
    assert len(rows_of(tokenizer, 0, MultipleChoice("x", (" ham", " no")), True, False)) == 2


def test_an_option_sees_the_prompt_and_itself_only() -> None:
    (row,) = rows_of(letters(), 0, MultipleChoice("ab", ("cde", "fgh")), True, True)
    batch = collate([row], 0, torch.float32, torch.device("cpu"))
    assert batch.mask is not None
    seen = batch.mask[0, 0] == 0
    assert row.segment == [0, 0, 0, 1, 1, 2, 2]
    assert seen[6].tolist() == [True, True, True, False, False, True, True]
    assert row.position == [0, 1, 2, 3, 4, 3, 4]


def test_batches_hold_rows_of_like_length_within_their_budget() -> None:
    rows = [row for i in range(40) for row in rows_of(letters(), i, MultipleChoice("a" * (1 + i % 13)), True, True)]
    parts = batches(rows, 30)
    assert sorted(row.example for part in parts for row in part) == list(range(40))
    assert all(len(part) * max(len(row.ids) for row in part) <= 30 for part in parts)
    assert len(batches(rows, 1)) == 40


@pytest.mark.parametrize(("prompt", "option"), [("hello", ""), ("", "")])
def test_a_continuation_without_a_token_is_refused(prompt: str, option: str) -> None:
    with pytest.raises(ValueError, match="has no token"):
        continuation(letters(), prompt, option, True)
    with pytest.raises(ValueError, match="has no token"):
        rows_of(letters(bos=False), 0, MultipleChoice(""), True, True)
