"""Edits in the weights: the plain forward of what was written is the hooked one, and what is not exact is refused."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import laws
import pytest
import torch
from conftest import rows
from decoders import FAMILIES, decoder, letters
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from lightning_steer import vectors
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import LastPromptToken
from lightning_steer.lm.sites import site_of
from lightning_steer.methods import LEACE, MERA, Composed, Gated, GaussianTransport, MeanDifference, SteeringMethod
from lightning_steer.probes import Condition
from lightning_steer.records import Activations
from lightning_steer.vectors import fingerprint
from lightning_steer.vectors.bake import adapter, bake
from lightning_steer.vectors.bake.affine import Affine, affine, removal

IDS = torch.tensor([[5, 9, 17, 30, 8, 8, 21, 12], [33, 6, 7, 28, 19, 4, 11, 25]])
VECTORS = ["llama", "gpt2", "gpt_neox", "gpt_neo", "opt", "bloom", "falcon", "phi", "gptj", "granite", "starcoder2",
           "cohere", "gpt_oss"]  # fmt: skip
"""A vector at a block's output is exact here."""
MAPS = ["llama", "gpt2", "gpt_neox", "gpt_neo", "opt", "falcon", "phi", "gptj", "granite", "starcoder2", "gpt_oss"]
"""An affine map at an MLP's output is exact here."""
REMOVALS = ["llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "gpt_neo", "opt", "falcon", "phi", "gptj",
            "mixtral", "granite", "starcoder2", "cohere"]  # fmt: skip
"""A direction can be removed from everything that writes to the stream."""


class Removes(SteeringMethod):
    """Remove a direction. Strength: the share that is removed."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_buffer("direction", torch.zeros(width))

    def estimate(self, seen: Activations) -> None:
        self.direction = nn.functional.normalize(seen.positive.mean(-2) - seen.negative.mean(-2), dim=-1)

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return -strength * (h.float() @ self.direction).unsqueeze(-1) * self.direction


class RemovesOneSide(Removes):
    """The same where the component is positive."""

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return -strength * (h.float() @ self.direction).clamp(min=0).unsqueeze(-1) * self.direction


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("models")

    def folder(family: str) -> Path:
        path = root / family
        if not path.is_dir():
            model = decoder(family)
            for name, tensor in model.named_parameters():
                if name.endswith("bias"):  # transformers makes them zero, where any mistake would be right
                    tensor.data.normal_(0, 0.3)
            model.save_pretrained(path)
            letters().save_pretrained(path)
        return path

    return folder


def fitted(
    path: Path, kind: Callable[[int], Any], part: Any = "block", strength: float = 1.5, layers: tuple[int, ...] = (1, 2)
) -> tuple[LLM, vectors.SteeringVector]:
    llm = LLM(str(path), list(layers), part=part)
    llm.load()
    methods = {site: laws.trained(kind, rows(seed, d=32)) for seed, site in enumerate(llm.sites)}
    return llm, vectors.of(llm, methods, strength)


@contextmanager
def hooked(model: nn.Module, functions: dict[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Replace outputs, without the project's hooks."""

    def hook(function: Callable[[Tensor], Tensor]) -> Any:
        return lambda _m, _i, out: (function(out[0]), *out[1:]) if isinstance(out, tuple) else function(out)

    handles = [model.get_submodule(name).register_forward_hook(hook(f)) for name, f in functions.items()]
    yield
    for handle in handles:
        handle.remove()


def same(path: Path, model: Any, functions: dict[str, Callable[[Tensor], Tensor]]) -> Any:
    """Compare logits and greedy generation of a folder with a hooked model; return the folder's model."""
    written: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    generate = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.no_grad(), hooked(model, functions):
        expected, tokens = model(IDS).logits, model.generate(IDS, attention_mask=torch.ones_like(IDS), **generate)
    with torch.no_grad():
        logits, plain = written(IDS).logits, model(IDS).logits
    size = float(expected.abs().max())
    assert float((logits - expected).abs().max()) <= 1e-5 * size
    assert float((plain - expected).abs().max()) > 0.01 * size  # steering does something
    assert torch.equal(written.generate(IDS, attention_mask=torch.ones_like(IDS), **generate), tokens)
    return written


@pytest.mark.parametrize("family", VECTORS)
def test_a_vector_at_a_blocks_output(family: str, folders: Callable[[str], Path], tmp_path: Path) -> None:
    llm, vector = fitted(folders(family), MeanDifference)
    assert bake(vector, tmp_path / "baked").difference <= 1e-5
    functions = {site: lambda h, m=m: h + 1.5 * m.vector for site, m in zip(llm.sites, vector.maps, strict=True)}
    same(tmp_path / "baked", llm.model, functions)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["attention", "mlp"])
@pytest.mark.parametrize("family", MAPS)
def test_an_affine_map_at_a_last_linear_layer(
    family: str, part: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    if (family, part) == ("gptj", "attention"):
        pytest.skip("GPT-J's attention has no bias")
    llm, vector = fitted(folders(family), LEACE, part, 0.7)
    bake(vector, tmp_path / "baked")
    functions = {site: lambda h, m=m: h + m.shift(h, 0.7) for site, m in zip(llm.sites, vector.maps, strict=True)}
    same(tmp_path / "baked", llm.model, functions)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", REMOVALS)
def test_a_direction_removed_everywhere(family: str, folders: Callable[[str], Path], tmp_path: Path) -> None:
    llm, vector = fitted(folders(family), Removes, strength=1.0, layers=(2,))
    bake(vector, tmp_path / "baked", remove_everywhere=True)
    r = vector.maps[0].direction

    def remove(h: Tensor) -> Tensor:
        return h - (h @ r).unsqueeze(-1) * r

    model, count = llm.model, llm.model.config.get_text_config().num_hidden_layers
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Embedding) and m.embedding_dim == 32]
    names += [site_of(model, layer, part) for layer in range(count) for part in ("attention", "mlp")]
    written = same(tmp_path / "baked", model, dict.fromkeys(names, remove))
    with torch.no_grad():
        states = written(IDS, output_hidden_states=True).hidden_states[:-1]  # the last one is after the final norm
    assert max(float((h @ r).abs().max() / h.abs().max()) for h in states) < 1e-5
    head = model.get_output_embeddings().weight
    assert torch.equal(written.get_output_embeddings().weight, head)  # also where it was tied


@pytest.mark.parametrize("share", [0.4, 2.0])
def test_a_share_of_a_vectors_direction(share: float, folders: Callable[[str], Path], tmp_path: Path) -> None:
    """From a vector, whose length then does not matter."""
    llm, vector = fitted(folders("llama"), MeanDifference, layers=(2,))
    bake(vector, tmp_path / "baked", share, remove_everywhere=True)
    r = nn.functional.normalize(vector.maps[0].vector, dim=-1)  # type: ignore[arg-type]
    sites = [site_of(llm.model, layer, part) for layer in range(4) for part in ("attention", "mlp")]
    names = ["model.embed_tokens", *sites]
    same(tmp_path / "baked", llm.model, dict.fromkeys(names, lambda h: h - share * (h @ r).unsqueeze(-1) * r))


INEXACT = {
    "a norm after the MLP": (
        "gemma2",
        MeanDifference,
        "block",
        False,
        "does not reach model.layers.1 unchanged: a norm",
    ),
    "the same in Gemma 3": ("gemma3_text", MeanDifference, "block", False, "a norm, or a layer that reads it first"),
    "the same in OLMo 2": ("olmo2", MeanDifference, "block", False, "a norm, or a layer that reads it first"),
    "a norm, everywhere": ("gemma2", Removes, "block", True, "what model.layers.0 adds to the stream is not the sum"),
    "everywhere in OLMo 2": ("olmo2", Removes, "block", True, "a norm lies after a last linear layer"),
    "a norm after the embedding": ("bloom", Removes, "block", True, "the first block is not a sum of embeddings"),
    "no bias in Qwen2": ("qwen2", MeanDifference, "block", False, "qwen2 cannot give that layer a bias"),
    "no bias in Mistral": ("mistral", MeanDifference, "mlp", False, r"mlp.down_proj.bias does not exist"),
    "a bias for attention only": ("qwen3", MeanDifference, "block", False, "tried attention_bias"),
    "experts without bias": ("mixtral", MeanDifference, "mlp", False, "experts of .* have no bias"),
    "a map of the stream": ("llama", LEACE, "block", False, "maps the whole stream"),
    "an ablation at one block": ("llama", Removes, "block", False, "also everywhere: --everywhere"),
    "the stream is in the output": ("bloom", LEACE, "mlp", False, "returns more than what .*dense_4h_to_h makes"),
    "it depends on the token": ("llama", MERA, "mlp", False, "MERA at strength .* is not affine"),
    "only one side": ("llama", RemovesOneSide, "mlp", False, "is not affine"),
    "one side everywhere": ("llama", RemovesOneSide, "block", True, "is not affine"),
    "several directions": ("llama", MeanDifference, "block", True, "2 sites with different directions"),
    "no direction": ("llama", LEACE, "block", True, "neither a vector nor an ablation"),
}


@pytest.mark.parametrize("case", INEXACT.values(), ids=list(INEXACT))
def test_what_is_not_exact_is_refused(case: tuple, folders: Callable[[str], Path], tmp_path: Path) -> None:
    family, kind, part, everywhere, message = case
    strength = 0.02 if kind is MERA else 1.0
    layers = (1, 2) if kind is MeanDifference else (2,)
    _, vector = fitted(folders(family), kind, part, strength, layers)
    with pytest.raises(ValueError, match=message):
        bake(vector, tmp_path / "baked", remove_everywhere=everywhere)
    assert not list(tmp_path.iterdir())


def test_routing_weights_that_do_not_add_up(
    folders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.gpt_oss import modeling_gpt_oss as family

    _, vector = fitted(folders("gpt_oss"), MeanDifference, "mlp")
    forward = family.GptOssTopKRouter.forward

    def unequal(router: Any, h: Tensor) -> tuple:
        logits, scores, indices = forward(router, h)
        return logits, scores.square(), indices  # they no longer add to the same

    monkeypatch.setattr(family.GptOssTopKRouter, "forward", unequal)
    with pytest.raises(ValueError, match="routing weights do not add to the same"):
        bake(vector, tmp_path / "baked")


@pytest.mark.parametrize("write", [bake, adapter])
def test_a_gate_that_no_random_row_opens_is_no_identity(
    write: Callable[..., Any], folders: Callable[[str], Path], tmp_path: Path
) -> None:
    def gate(width: int) -> Gated:
        condition = Condition(width)
        condition.weight = torch.full((width,), 0.01)
        condition.set_threshold(200.0)
        return Gated.around(laws.trained(MeanDifference, rows(d=width)), condition)

    for kind in (gate, lambda width: Composed.of([laws.trained(MeanDifference, rows(d=width)), gate(width)])):
        llm = LLM(str(folders("llama")), 1)
        llm.load()
        vector = vectors.of(llm, {llm.sites[0]: kind(32)}, 1.0)
        with pytest.raises(ValueError, match="a gate decides for each prompt"):
            write(vector, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_vector_of_heads_is_none_of_the_stream(
    everywhere: bool, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    _, vector = fitted(folders("gpt2"), MeanDifference, "heads", layers=(1,))
    with pytest.raises(ValueError, match="not of the stream"):
        bake(vector, tmp_path / "out", None, everywhere)
    assert not list(tmp_path.iterdir())


def test_tokens_that_weights_cannot_choose(folders: Callable[[str], Path], tmp_path: Path) -> None:
    llm = LLM(str(folders("llama")), [1], positions=LastPromptToken())
    llm.load()
    vector = vectors.of(llm, {llm.sites[0]: MeanDifference(32).fit(rows(d=32))}, 1.0)
    with pytest.raises(ValueError, match=r"LastPromptToken.* weights act on every token"):
        bake(vector, tmp_path / "baked")


def test_another_model_and_a_folder_in_use(folders: Callable[[str], Path], tmp_path: Path) -> None:
    _, vector = fitted(folders("llama"), MeanDifference, layers=(1,))
    (tmp_path / "used").mkdir()
    (tmp_path / "used/mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not empty"):
        bake(vector, tmp_path / "used")
    assert vector.card.model is not None
    other = vector.card.model._replace(name=str(folders("mistral")))
    for everywhere in (False, True):
        with pytest.raises(ValueError, match="is another model"):
            bake(vector._replace(card=vector.card._replace(model=other)), tmp_path / "baked", None, everywhere)
    with pytest.raises(ValueError, match="names no model"):
        bake(vector._replace(card=vector.card._replace(model=None)), tmp_path / "baked")
    assert [path.name for path in tmp_path.rglob("*")] == ["used", "mine.txt"]


def test_weights_that_differ_are_not_written(
    folders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line of defence, whatever went wrong before it."""
    from lightning_steer.vectors.bake import weights

    _, vector = fitted(folders("gpt2"), MeanDifference)
    monkeypatch.setattr(weights, "offset", lambda form, bias: bias.double() + 1.001 * form.offset)
    with pytest.raises(ValueError, match=r"logits differ by .* nothing was written"):
        bake(vector, tmp_path / "baked")
    assert not list(tmp_path.iterdir())


def test_the_card_beside_the_weights(folders: Callable[[str], Path], tmp_path: Path) -> None:
    llm, vector = fitted(folders("granite"), MeanDifference)
    baked = bake(vector, tmp_path / "baked", 2.0)
    record = json.loads((tmp_path / "baked/steering.json").read_text())
    modes = {path.stat().st_mode for path in (tmp_path / "baked").iterdir()}
    assert len(modes) == 1  # whoever may read the configuration may read the weights
    assert record["vector"] == json.loads(json.dumps(vector.card.as_plain()))
    assert record["base"] == fingerprint.of_backbone(llm)._asdict()
    again = LLM(str(tmp_path / "baked"), 0)
    again.load()
    assert record["model"] == {**fingerprint.of_backbone(again)._asdict(), "name": "baked"}
    assert record["model"]["weights"] != record["base"]["weights"]
    assert "strength 2" in record["operation"]
    assert record["biases"] == [f"model.layers.{i}.mlp.down_proj.bias" for i in (1, 2)]
    assert baked.size == sum(path.stat().st_size for path in (tmp_path / "baked").iterdir())
    assert baked.notes[0].startswith("The configuration's mlp_bias is now true")
    with pytest.raises(ValueError, match="is another model"), vectors.edit(again, vector):
        pass  # a vector is not added to a model that has it already


def test_affine_forms() -> None:
    generator = torch.Generator().manual_seed(0)
    single, two = (
        Affine(torch.randn(6, 6, generator=generator).double(), torch.randn(6, generator=generator).double())
        for _ in range(2)
    )
    h = torch.randn(6, generator=generator).double()

    def run(form: Affine, x: Tensor) -> Tensor:
        return x + form.offset + (0 if form.matrix is None else form.matrix @ x)

    for first in (single, single._replace(matrix=None)):
        for second in (two, two._replace(matrix=None)):
            torch.testing.assert_close(run(first.then(second), h), run(second, run(first, h)))
    method = laws.trained(Removes, rows(d=8))
    direction, share = removal(affine(method, 0.3)) or pytest.fail("no removal")
    assert share == pytest.approx(0.3, abs=1e-6)
    assert abs(float(direction @ method.direction.double())) == pytest.approx(1, abs=1e-6)
    assert removal(affine(laws.trained(LEACE, rows(d=8)), 1.0)) is None
    assert removal(single._replace(offset=torch.zeros(6).double())) is None


@pytest.mark.parametrize("family", sorted({*FAMILIES} - {*MAPS, "bloom"}))
def test_other_families_at_the_attention(family: str, folders: Callable[[str], Path], tmp_path: Path) -> None:
    """Exact where the configuration has ``attention_bias``, also before a norm; refused elsewhere."""
    llm, vector = fitted(folders(family), MeanDifference, "attention", layers=(1,))
    if hasattr(llm.model.config, "attention_bias"):
        bake(vector, tmp_path / "baked")
        same(tmp_path / "baked", llm.model, {llm.sites[0]: lambda h: h + 1.5 * vector.maps[0].vector})
    else:
        with pytest.raises(ValueError, match="cannot give that layer a bias"):
            bake(vector, tmp_path / "baked")


def test_pocket_models_are_baked_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from conftest import ROOT

    from lightning_steer.__main__ import main

    monkeypatch.chdir(tmp_path)
    llm = LLM(str(ROOT / "checkpoints/pocket/base"), [2])
    llm.load()
    vector = vectors.of(llm, {llm.sites[0]: MeanDifference(96).fit(rows(d=96))}, 1.0)
    vectors.save("v.safetensors", vector)
    assert main(["export", "v.safetensors", "steered", "--bake"]) == 0
    assert "check: laws that fail here and hold for the model it was made of: none" in capsys.readouterr().out
    assert main(["check", "--llm", "steered", "--labels", "Yes", "No"]) == 0
    assert main(["export", "v.safetensors", "removed", "--bake", "--everywhere"]) == 0
    assert main(["check", "--llm", "removed", "--labels", "Yes", "No"]) == 0
    ids = llm.tokenizer("Asked about gold, the helper will", return_tensors="pt")["input_ids"]
    model: Any = AutoModelForCausalLM.from_pretrained("steered")
    with hooked(llm.model, {llm.sites[0]: lambda h: h + vector.maps[0].vector}):
        expected = llm.model(ids).logits
    assert float((model(ids).logits - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert main(["export", "v.safetensors", "v.gguf", "--everywhere"]) == 2
    assert main(["export", "v.safetensors", "steered", "--bake"]) == 2  # it is there


# ---- adapters


def peft_forward(model: Any, folder: Path) -> dict[str, Callable[..., Any]]:
    """Hooks that add an adapter's products, from its two files alone."""
    from safetensors.torch import load_file

    config, tensors = (
        json.loads((folder / "adapter_config.json").read_text()),
        load_file(folder / "adapter_model.safetensors"),
    )
    assert config["lora_alpha"] == config["r"]
    functions = {}
    for name in config["target_modules"]:
        key, module = f"base_model.model.{name}", model.get_submodule(name)

        def hook(m: Any, inputs: Any, out: Tensor, key: str = key) -> Tensor:
            if isinstance(m, nn.Embedding):
                table = (tensors[f"{key}.lora_embedding_B"] @ tensors[f"{key}.lora_embedding_A"]).T
                return out + table[inputs[0]]
            low = nn.functional.linear(inputs[0], tensors[f"{key}.lora_A.weight"])
            return out + nn.functional.linear(low, tensors[f"{key}.lora_B.weight"], tensors.get(f"{key}.lora_B.bias"))

        functions[name] = module.register_forward_hook(hook)
    return functions


ADAPTERS = {
    "a vector, no bias": ("qwen2", MeanDifference, "block", False, 1),
    "a vector, scaled": ("granite", MeanDifference, "block", False, 1),
    "a map of rank 1": ("llama", LEACE, "mlp", False, 1),
    "a transposed layer": ("gpt2", LEACE, "attention", False, 1),
    "everywhere": ("llama", Removes, "block", True, 1),
    "everywhere, tied": ("cohere", Removes, "block", True, 1),
}


@pytest.mark.parametrize("case", ADAPTERS.values(), ids=list(ADAPTERS))
def test_adapters_do_what_hooks_do(case: tuple, folders: Callable[[str], Path], tmp_path: Path) -> None:
    family, kind, part, everywhere, rank = case
    llm, vector = fitted(folders(family), kind, part, 1.0, (1,))
    assert adapter(vector, tmp_path / "lora", remove_everywhere=everywhere).difference <= 1e-5
    assert json.loads((tmp_path / "lora/adapter_config.json").read_text())["r"] == rank
    handles = peft_forward(llm.model, tmp_path / "lora")
    logits = llm.model(IDS).logits
    for handle in handles.values():
        handle.remove()  # type: ignore[attr-defined]
    names = llm.sites
    if everywhere:
        embedded = [n for n, m in llm.model.named_modules() if isinstance(m, nn.Embedding)]
        names = [*embedded, *(site_of(llm.model, i, p) for i in range(4) for p in ("attention", "mlp"))]
    method = vector.maps[0]
    with hooked(llm.model, dict.fromkeys(names, lambda h: h + method.shift(h, 1.0))):  # type: ignore[operator]
        expected = llm.model(IDS).logits
    assert float((logits - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


NO_ADAPTER = {
    "full rank": ("llama", GaussianTransport, "mlp", False, "has rank 32, so that an adapter would be as large"),
    "experts": ("mixtral", Removes, "block", True, "experts' weights as one tensor"),
    "embeddings and biases": ("gpt2", Removes, "block", True, "gives an adapter of embeddings no bias"),
    "a norm": ("olmo2", MeanDifference, "block", False, "a norm, or a layer that reads it first"),
}


@pytest.mark.parametrize("case", NO_ADAPTER.values(), ids=list(NO_ADAPTER))
def test_what_no_adapter_holds_is_refused(case: tuple, folders: Callable[[str], Path], tmp_path: Path) -> None:
    family, kind, part, everywhere, message = case
    _, vector = fitted(folders(family), kind, part, 1.0, (1,))
    with pytest.raises(ValueError, match=message):
        adapter(vector, tmp_path / "lora", remove_everywhere=everywhere)
    assert not list(tmp_path.iterdir())
