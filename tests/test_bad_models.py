"""A model that cannot be used, or not as asked for, ends in one sentence that names the value and what to do."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from decoders import decoder, letters
from huggingface_hub import errors
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration
from transformers.utils import hub

from lightning_steer.__main__ import main
from lightning_steer.lm.language_model import LLM, PARTS
from lightning_steer.lm.tokens import MultipleChoice

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    decoder("llama").save_pretrained(folder)
    letters().save_pretrained(folder)
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def configure(folder: Path, *without: str, **settings: object) -> None:
    path = folder / "config.json"
    known = {name: value for name, value in json.loads(path.read_text()).items() if name not in without}
    path.write_text(json.dumps(known | settings))


def cut(file: Path, keep: float) -> None:
    os.truncate(file, int(file.stat().st_size * keep))


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def without_a_tensor(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def reshaped(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["model.norm.weight"] = torch.ones(7)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def not_a_number(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def without_a_shard(folder: Path) -> None:
    decoder("llama").save_pretrained(folder, max_shard_size="20KB")
    (folder / WEIGHTS).unlink(missing_ok=True)
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def remove_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def foreign_tokenizer(folder: Path) -> None:
    small = decoder("llama", vocab_size=20)
    small.save_pretrained(folder)


def adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


def encoder(folder: Path) -> None:
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48}
    BertForMaskedLM(BertConfig(vocab_size=35, initializer_range=0.3, **size)).save_pretrained(folder)


def translator(folder: Path) -> None:
    size = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    T5ForConditionalGeneration(T5Config(vocab_size=35, **size)).save_pretrained(folder)


OWN_CODE = {"AutoConfig": "configuration_mine.Mine", "AutoModelForCausalLM": "modeling_mine.Mine"}
FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickled weights": (pickled, "has no safetensors weights (pickled ones are never loaded): convert it"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has no safetensors weights"),
    "weights cut short": (lambda f: cut(f / WEIGHTS, 0.5), "are damaged"),
    "weights cut in the header": (lambda f: os.truncate(f / WEIGHTS, 50), "are damaged"),
    "empty weights": (lambda f: os.truncate(f / WEIGHTS, 0), "are damaged"),
    "weights that are text": (lambda f: (f / WEIGHTS).write_text("version https://git-lfs"), "are damaged"),
    "a tensor is missing": (without_a_tensor, "are incomplete: 1 tensors such as model.layers.1.mlp.up_proj.weight"),
    "a tensor of another shape": (reshaped, "is [7] in its file, and [32] by its config.json: these are of two models"),
    "a weight that is no number": (not_a_number, "gives logits that are not finite"),
    "a shard is missing": (without_a_shard, "is missing (FileNotFoundError: "),
    "no configuration": (lambda f: (f / "config.json").unlink(), "has no config.json: a model is saved with"),
    "a configuration cut short": (lambda f: cut(f / "config.json", 0.5), "is not valid JSON"),
    "an adapter": (adapter, "holds an adapter, not a whole model: merge it"),
    "no family": (lambda f: configure(f, "model_type"), "is of no family that this version of transformers knows"),
    "an unknown family": (
        lambda f: configure(f, model_type="lamma"),
        "is of no family that this version of transformers knows",
    ),
    "code of its own": (
        lambda f: configure(f, model_type="mine", auto_map=OWN_CODE),
        "brings code of its own, which is never run here",
    ),
    "an encoder": (encoder, "does not read from left to right (it is a BertLMHeadModel): take a decoder"),
    "encoder and decoder": (translator, "is of the encoder-decoder family t5, not a decoder: take a decoder"),
    "no tokenizer": (remove_tokenizer, "tokenizer"),
    "a damaged tokenizer": (lambda f: cut(f / "tokenizer.json", 0.5), "has no tokenizer that can be loaded"),
    "another model's tokenizer": (foreign_tokenizer, "the model embeds 20: it is another model's"),
    "a layer less than configured": (lambda f: configure(f, num_hidden_layers=5), "are incomplete: 9 tensors such as"),
}


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line by which ``check`` refuses."""
    capsys.readouterr()
    assert main(["check", *arguments]) == 2
    seen = capsys.readouterr()
    assert "Traceback" not in seen.err + seen.out
    lines = [line for line in seen.err.splitlines() if line.startswith("lightning_steer: ")]
    assert len(lines) == 1, seen.err
    assert not seen.out
    return lines[0]


@pytest.mark.parametrize("damage", FOLDERS)
def test_a_folder(damage: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    act, expected = FOLDERS[damage]
    act(model)
    sentence = said(capsys, "--llm", str(model))
    assert expected in sentence
    assert str(model) in sentence
    with pytest.raises(ValueError, match="model"):
        LLM(str(model)).load()


def test_the_folder_itself_is_fine(saved: Path) -> None:
    assert main(["check", "--llm", str(saved)]) == 0


NAMES = {
    "./nowhere": "there is no folder './nowhere'; a model is a local folder or a hub name such as",
    "/nowhere/at/all": "there is no folder '/nowhere/at/all'",
    "a/b/c": "there is no folder 'a/b/c'",
    "": "there is no folder ''",
    "nobody/nothing": "nobody/nothing is neither a local folder nor in the hub's local cache, and the hub cannot be",
    "not a name": "not a name",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert NAMES[name] in said(capsys, "--llm", name)


def test_a_file(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a file; a model is a folder with config.json" in said(capsys, "--llm", str(model / WEIGHTS))


def of_the_hub(kind: type[errors.HfHubHTTPError], status: int) -> Callable[..., None]:
    def download(*_: object, **__: object) -> None:
        raise kind("what the hub says", response=Mock(status_code=status, headers={}))

    return download


HUB = {
    "gated": (errors.GatedRepoError, 403, "someone/model is gated: ask for access on its hub page, then log in with"),
    "private or not there": (errors.RepositoryNotFoundError, 404, "there is no model 'someone/model' on the hub, or"),
    "no such revision": (errors.RevisionNotFoundError, 404, "someone/model has no revision 'v9' on the hub: give a"),
}


@pytest.mark.parametrize("case", HUB)
def test_what_the_hub_refuses(case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    kind, status, expected = HUB[case]
    monkeypatch.setattr(hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr(hub, "hf_hub_download", of_the_hub(kind, status))
    assert expected in said(capsys, "--llm", "someone/model", "--revision", "v9")


def test_what_is_asked_of_check(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "dtype is auto, float32, bfloat16 or float16, not 'float31'" in said(
        capsys, "--llm", str(saved), "--dtype", "float31"
    )
    assert "layer must lie between 0 and 2, not 7" in said(capsys, "--llm", str(saved), "--layer", "7")


def test_from_a_shell(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lightning_steer", "check", "--llm", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == f"lightning_steer: {tmp_path} has no config.json: a model is saved with model.save_pretrained\n"
    )


SETTINGS: dict[str, tuple[dict[str, object], str]] = {
    "a dtype that is none": ({"dtype": "float31"}, "dtype is auto, float32, bfloat16 or float16, not 'float31'"),
    "whole numbers": ({"dtype": "int8"}, "dtype is auto, float32, bfloat16 or float16, not 'int8'"),
    "a layer too many": ({"layers": 4}, "layer 4 does not exist: .* has 4, counted from 0"),
    "a layer too few": ({"layers": [0, -5]}, "layer -5 does not exist"),
    "one layer twice": ({"layers": [3, -1]}, r"layers \[3, -1\] name one layer twice"),
    "no layer": ({"layers": []}, r"must name at least one, not 8192 and \[\]"),
    "an unknown part": (
        {"part": "neurons"},
        "part is block, attention, mlp, heads, normalize is .* not 'neurons' and 'none'",
    ),
    "an unknown score": ({"normalize": "word"}, "not 'block' and 'word'"),
    "no token at a time": ({"tokens_per_batch": 0}, "tokens_per_batch must be at least 1, not 0"),
    "a system without a chat": ({"system": "be kind"}, "a system message is part of a chat: set chat"),
    "a chat without a template": ({"chat": True}, "has no chat template: leave chat off"),
    "quantised without bitsandbytes": ({"load_in_4bit": True}, "load_in_4bit needs bitsandbytes: pip install"),
    "spread without accelerate": ({"device_map": "auto"}, "device_map needs accelerate: pip install accelerate"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_setting(case: str, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, expected = SETTINGS[case]
    for absent in ("bitsandbytes", "accelerate"):
        monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ValueError, match=expected) as caught:
        LLM(str(saved), **settings).load()  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_part_that_the_family_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "mlp", ("no_such_name",))
    with pytest.raises(ValueError, match=r"LlamaForCausalLM blocks have no mlp of their own; they hold \['self_attn'"):
        LLM("llama", part="mlp").adopt(decoder("llama"), letters())


@pytest.mark.parametrize(
    ("strategy", "processes"), [(DDPStrategy(), 1), (DDPStrategy(), 2), (SingleDeviceStrategy(), 2)]
)
def test_a_device_map_belongs_to_one_process(strategy: object, processes: int) -> None:
    data = SimpleNamespace(trainer=SimpleNamespace(world_size=processes, strategy=strategy))
    with pytest.raises(
        ValueError, match=r"device_map 'auto' .* one process: use it with trainer.devices 1 and without"
    ):
        LLM("any", device_map="auto").check(data)
    LLM("any").check(data)


def test_a_device_map_in_one_process_is_fine() -> None:
    trainer = SimpleNamespace(world_size=1, strategy=SingleDeviceStrategy())
    LLM("any", device_map="auto").check(SimpleNamespace(trainer=trainer))
    LLM("any", device_map="auto").check(SimpleNamespace(trainer=None))


# ---- texts that a model cannot read


def language_model(bos: bool = True, **settings: object) -> LLM:
    return LLM("tiny").adopt(decoder("llama", **settings), letters(bos))  # type: ignore[arg-type]


def test_texts_without_a_token() -> None:
    bare = language_model(bos=False)
    for texts in ([""], ["hello", ""]):
        with pytest.raises(ValueError, match="the text '' has no token"):
            bare.activations([MultipleChoice(text) for text in texts])
    assert language_model().continued([""], None, 2) == bare.continued([""], None, 2)  # each from the beginning of text
    bare.tokenizer.bos_token = bare.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="the prompt '' has no token that could be continued"):
        bare.generate(["hello", ""])
    with pytest.raises(ValueError, match="at least 1 prompt is continued, by 1 token, not 0 by 64"):
        bare.generate([])


def test_continuations_without_a_token() -> None:
    llm = language_model()
    with pytest.raises(ValueError, match="the continuation '' after 'hello' has no token of its own"):
        llm.scores([MultipleChoice("hello", (" yes", ""))])
    for questions in ([], [MultipleChoice("hello")], [MultipleChoice("hello", ("a",)), MultipleChoice("hello")]):
        with pytest.raises(ValueError, match="scores are of continuations"):
            llm.scores(questions)
    bare = language_model(bos=False)
    bare.tokenizer.bos_token = bare.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="follows nothing, and the tokenizer has no beginning of text"):
        bare.scores([MultipleChoice("", ("a",))])


def test_texts_that_are_too_long() -> None:
    llm = language_model(max_position_embeddings=20)
    llm.scores([MultipleChoice("a" * 15, ("bcdef", "ghi"))])
    for question in (MultipleChoice("a" * 15, ("bcdefg", "ghi")), MultipleChoice("a" * 20, ("b",))):
        with pytest.raises(ValueError, match=r"2[01] tokens are more than the 20 that tiny reads: 'aaaa"):
            llm.scores([question])
    with pytest.raises(ValueError, match="21 tokens are more than the 20"):
        llm.activations([MultipleChoice("a" * 20)])
    assert llm.generate(["a" * 10], max_new_tokens=10)  # 11 tokens and 9 new ones: the last is never read
    with pytest.raises(ValueError, match="12 tokens and 10 new ones are more than the 20 that tiny reads: 'aaa"):
        llm.generate(["a" * 11], max_new_tokens=10)


def test_a_chat_template_that_knows_no_system_message() -> None:
    tokenizer = letters()
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    llm = LLM("strict", chat=True, system="be kind").adopt(decoder("llama"), tokenizer)
    with pytest.raises(ValueError, match=r"chat template of strict refuses .*be kind.*: System role not supported"):
        llm.scores([MultipleChoice("hello", (" yes",))])


def test_a_padding_token_beyond_the_embedding_is_not_used() -> None:
    tokenizer = letters(pad=False)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    llm = LLM("padded").adopt(decoder("llama"), tokenizer)
    assert tokenizer.pad_token_id == 35
    assert llm.pad == tokenizer.eos_token_id
    questions = [MultipleChoice("hello there", (" yes", " no")), MultipleChoice("hi", (" yes", " no"))]
    together = llm.scores(questions)[0]
    alone = torch.cat([llm.scores([question])[0] for question in questions])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
