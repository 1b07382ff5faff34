"""Reading a cache gives what the model computes: any family, part, positions, batches, shards, and way of storing."""

import pickle
from pathlib import Path

import pytest
import torch
from decoders import FAMILIES, decoder, letters
from safetensors.torch import save_file
from torch import Tensor

from lightning_steer.cache import Build, Cache, ensure
from lightning_steer.cache.manifest import read_shard
from lightning_steer.hooks import capture
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import AllTokens, GeneratedTokens, LastPromptToken, Positions, TokensFrom
from lightning_steer.lm.tokens import MultipleChoice

TEXTS = ["hello there", "a", "what is this, then?", "abc " * 9, "no", "yes. or no?", "abc " * 5 + "x", "hello there"]
QUESTIONS = [MultipleChoice(text) for text in TEXTS]


def language_model(family: str = "llama", dtype: torch.dtype = torch.float32, **settings: object) -> LLM:
    return LLM(family, **{"layers": [0, 2], **settings}).adopt(decoder(family, dtype), letters())  # type: ignore[arg-type]


def rows(cache: Cache) -> Tensor:
    """``[layers, rows, d]``."""
    return torch.stack([cache.layer(layer) for layer in cache.layers])


@pytest.mark.parametrize(
    ("part", "positions"),
    [("block", LastPromptToken()), ("block", AllTokens()), ("attention", TokensFrom(-2)), ("mlp", LastPromptToken())],
    ids=["block-last", "block-mean", "attention-some", "mlp-last"],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_the_activations(family: str, part: str, positions: Positions, tmp_path: Path) -> None:
    llm = language_model(family, part=part, read_positions=positions)
    expected = torch.stack(list(llm.activations(QUESTIONS).values()))
    assert torch.equal(rows(ensure(llm, TEXTS, tmp_path, dtype="float32")), expected)
    assert torch.equal(rows(ensure(llm, TEXTS, tmp_path)), expected.bfloat16().float())


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_models_of_half_precision(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    llm = language_model(family, dtype)
    expected = torch.stack(list(llm.activations(QUESTIONS).values())).float()
    assert torch.equal(rows(ensure(llm, TEXTS, tmp_path, dtype="float32")), expected)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "opt"])
@pytest.mark.parametrize(
    "positions",
    [AllTokens(), LastPromptToken(), TokensFrom(3), TokensFrom(-3)],
    ids=lambda positions: type(positions).__name__,
)
def test_each_token_is_that_of_a_forward_pass_by_itself(family: str, positions: Positions, tmp_path: Path) -> None:
    llm = language_model(family, part="mlp", read_positions=positions, tokens_per_batch=40)
    texts = [text for text in TEXTS if len(text) > 3]
    cache = ensure(llm, texts, tmp_path, each_token=True, dtype="float32", texts_per_shard=3)
    expected, of = [], []
    for number, text in enumerate(texts):
        ids = torch.tensor([llm.tokenizer(text)["input_ids"]])
        with capture(llm.model, llm.sites) as seen, torch.no_grad():
            llm.model(ids)
        index, length = torch.arange(ids.shape[1]).unsqueeze(0), torch.tensor([ids.shape[1]])
        mask = positions.mask(index, length)
        picked = torch.ones(ids.shape[1], dtype=torch.bool) if mask is None else mask[0]
        expected.append(torch.stack([seen[site].reshape(ids.shape[1], -1)[picked] for site in llm.sites]))
        of += [number] * int(picked.sum())
    torch.testing.assert_close(rows(cache), torch.cat(expected, 1), rtol=1e-4, atol=1e-5)
    assert cache.texts().tolist() == of
    assert len(cache) == len(of)


def test_any_batch_and_shard_size_gives_the_same_rows(tmp_path: Path) -> None:
    expected = rows(ensure(language_model(), TEXTS, tmp_path / "whole", dtype="float32"))
    for tokens, texts in ((1, 1), (20, 3), (50, 7), (8192, 8), (30, 100)):
        llm = language_model(tokens_per_batch=tokens)
        cache = ensure(llm, TEXTS, tmp_path / f"{tokens}", dtype="float32", texts_per_shard=texts)
        assert len(cache.manifest.shards) == -(-len(TEXTS) // texts)
        torch.testing.assert_close(rows(cache), expected, rtol=1e-4, atol=1e-4)


def test_rows_in_any_order_and_of_any_layers(tmp_path: Path) -> None:
    cache = ensure(language_model(layers=[0, 1, 3]), TEXTS, tmp_path, texts_per_shard=3)
    every = rows(cache)
    index = torch.tensor([7, 0, 3, 3, 6, 1])
    assert torch.equal(cache.rows(index), every[:, index])
    assert torch.equal(cache.rows(index.tolist(), [3, 0]), every[[2, 0]][:, index])
    assert cache.rows([]).shape == (3, 0, 32)
    assert every.dtype == cache.rows([1]).dtype == torch.float32
    again = pickle.loads(pickle.dumps(cache))
    assert torch.equal(again.rows(index), every[:, index])
    for wrong in ([8], [-1], [0, 100]):
        with pytest.raises(IndexError, match="rows 0 to 7"):
            cache.rows(wrong)
    with pytest.raises(ValueError, match=r"layer 2 is not in the cache .* holds 0, 1, 3"):
        cache.layer(2)


def test_a_question_is_read_with_its_first_option(tmp_path: Path) -> None:
    llm = language_model()
    questions = [MultipleChoice("is it", (" yes", " no")), MultipleChoice("was it", (" no",)), MultipleChoice("plain")]
    expected = torch.stack(list(llm.activations(questions).values()))
    assert torch.equal(rows(ensure(llm, questions, tmp_path, dtype="float32")), expected)
    texts = ["is it yes", "was it no", "plain"]
    assert torch.equal(rows(ensure(llm, texts, tmp_path / "said", dtype="float32")), expected)


def test_a_chat_template_is_put_around_texts(tmp_path: Path) -> None:
    tokenizer = letters()
    tokenizer.chat_template = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{% endfor %} ?"
    llm = LLM("chatting", layers=[0, 2], chat=True, system="be kind", read_positions=AllTokens()).adopt(
        decoder("llama"), tokenizer
    )
    expected = torch.stack(list(llm.activations(QUESTIONS).values()))
    assert torch.equal(rows(ensure(llm, TEXTS, tmp_path, dtype="float32")), expected)
    plain = torch.stack(list(language_model(read_positions=AllTokens()).activations(QUESTIONS).values()))
    assert (expected - plain).abs().max() > 0.01


def test_a_model_left_in_training_mode_is_not_recorded_with_dropout(tmp_path: Path) -> None:
    llm = language_model("gpt2")
    expected = torch.stack(list(llm.activations(QUESTIONS).values()))
    llm.train()
    assert torch.equal(rows(ensure(llm, TEXTS, tmp_path, dtype="float32")), expected)


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1.0, 1e7, 1e30])
def test_scaled_float16_holds_outlier_dimensions(factor: float, tmp_path: Path) -> None:
    llm = language_model()
    with torch.no_grad():
        llm.model.model.embed_tokens.weight.mul_(factor)
        llm.model.model.embed_tokens.weight[:, 5] *= 1000
    exact = rows(ensure(llm, TEXTS, tmp_path, dtype="float32", texts_per_shard=3))
    recorded = rows(ensure(llm, TEXTS, tmp_path, dtype="float16", texts_per_shard=3))
    assert factor < 1e3 or exact[0].abs().max() > 65504  # a plain float16 could not
    large = exact.abs() > exact.abs().amax((1, 2), keepdim=True) * 2.0**-20
    assert ((recorded - exact).abs() <= exact.abs() * 2.0**-11)[large].all()
    assert large.float().mean() > 0.99
    stored = Cache(tmp_path)._shard(0)
    assert stored[0].dtype == torch.float16
    assert torch.equal(stored[1], torch.exp2(stored[1].log2().round()))  # powers of two


def test_all_zero_activations_are_stored_as_such(tmp_path: Path) -> None:
    llm = language_model(layers=0)
    for weight in llm.model.parameters():
        weight.zero_()
    assert not rows(ensure(llm, TEXTS, tmp_path, dtype="float16")).any()


def test_reading_some_rows_leaves_the_others_on_disk(tmp_path: Path) -> None:
    def resident() -> int:
        """Bytes of memory that are the process's own, not the file's."""
        return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024

    h = torch.zeros(16, 4096, 512, dtype=torch.bfloat16)  # 67 MB
    save_file({"h": h, "scale": torch.ones(16), "count": torch.ones(4096)}, tmp_path / "shard")
    del h
    before = resident()
    h, _, _ = read_shard(tmp_path / "shard")
    assert h[:, torch.tensor([5, 4000])].float().sum() == 0
    assert resident() - before < 12e6


class Endless(list):
    """Texts that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> str:  # type: ignore[override]
        return f"{'abcdefgh'[i % 8]}{'xyz'[i % 3]}"

    def __iter__(self):
        return (self[i] for i in range(self.count))


def test_memory_does_not_grow_with_the_number_of_texts(tmp_path: Path) -> None:
    def peak() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    size = {"hidden_size": 256, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8}
    llm = LLM("wide", layers=[0, 1, 2, 3]).adopt(decoder("llama", **size, intermediate_size=8), letters())
    peaks = []
    ensure(llm, Endless(512), tmp_path / "warm", dtype="float32", texts_per_shard=256)
    for count in (2048, 8192):
        Path("/proc/self/clear_refs").write_text("5")  # start the peak anew
        ensure(llm, Endless(count), tmp_path / f"{count}", dtype="float32", texts_per_shard=256)
        peaks.append(peak())
    assert sum(file.stat().st_size for file in (tmp_path / "8192").iterdir()) > 32e6
    assert peaks[1] - peaks[0] < 4e6, peaks


def refused(tmp_path: Path, match: str, texts: list[str] | None = None, llm: LLM | None = None, **more: object) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        ensure(llm or language_model(), TEXTS if texts is None else texts, tmp_path, **more)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_what_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "stored as bfloat16, float32, float16, not 'int8'", dtype="int8")
    refused(tmp_path, "at least 1 text is recorded, and to a shard, not 0", [])
    refused(tmp_path, "at least 1 text is recorded, and to a shard, not 8 and 0", texts_per_shard=0)
    refused(
        tmp_path,
        "GeneratedTokens picks no token of text 0: 'hello there'",
        llm=language_model(read_positions=GeneratedTokens()),
    )
    refused(
        tmp_path,
        r"TokensFrom picks no token of text 1: 'a'",
        llm=language_model(read_positions=TokensFrom(4)),
        texts_per_shard=3,
    )
    short = LLM("short").adopt(decoder("llama", max_position_embeddings=30), letters())
    refused(tmp_path, "text 3 has 37 tokens, and short takes 1 to 30: 'abc abc", llm=short, texts_per_shard=2)
    bare = LLM("bare").adopt(decoder("llama"), letters(bos=False))
    refused(tmp_path, "text 2 has 0 tokens", ["a", "b", ""], llm=bare)
    broken = language_model()
    broken.model.model.embed_tokens.weight[broken.tokenizer("?")["input_ids"][-1]] = torch.inf
    refused(tmp_path, r"activations of text 2 at model.layers.0 are not finite", llm=broken, texts_per_shard=2)
    with pytest.raises(ValueError, match="layer 9 does not exist"):
        ensure(LLM("none", layers=9).adopt(decoder("llama"), letters()), TEXTS, tmp_path)
    with pytest.raises(ValueError, match="neither a local folder nor in the hub's local cache"):
        ensure(LLM("nobody/nothing"), TEXTS, tmp_path)
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(FileNotFoundError, match=r"there is no cache in .*record it with"):
        Cache(tmp_path)


def test_shards_may_be_recorded_in_any_order_by_anybody(tmp_path: Path) -> None:
    ensure(language_model(), TEXTS, tmp_path / "one", texts_per_shard=2)
    ranks = [Build(language_model(), TEXTS, tmp_path / "three", texts_per_shard=2) for _ in range(3)]
    (tmp_path / "three").mkdir()
    for rank in (2, 0, 1):
        for number in reversed(range(rank, 4, 3)):
            ranks[rank].shard(number)
    for rank in ranks[1:]:
        ranks[0].finished |= rank.finished
    assert torch.equal(rows(ranks[0].finish()), rows(Cache(tmp_path / "one")))
    for file in (tmp_path / "one").iterdir():
        assert file.name == ".lock" or file.read_bytes() == (tmp_path / "three" / file.name).read_bytes()
