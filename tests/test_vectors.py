"""Vector files: every method comes back bit for bit, and steers its own model and no other."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import laws
import pytest
import torch
from conftest import ROOT, WORLD, rows
from decoders import FAMILIES, decoder, letters
from safetensors import safe_open
from test_methods import VARIANTS
from torch import nn

from lightning_steer import vectors
from lightning_steer.__main__ import main
from lightning_steer.lm.language_model import LLM, PARTS, blocks
from lightning_steer.lm.positions import (
    AllTokens,
    GeneratedTokens,
    LastPromptToken,
    Positions,
    PromptTokens,
    TokensFrom,
)
from lightning_steer.methods import LEACE, MeanDifference, Ridge, SteeringMethod
from lightning_steer.networks import ToyBackbone
from lightning_steer.vectors import exchange
from lightning_steer.vectors.file import state, units
from lightning_steer.vectors.imported import ImportedVector

Make = Callable[[int], SteeringMethod]
PROMPTS = ["the cat sat", "a", "what is this: a longer one"]


def tiny(
    family: str = "llama", seed: int = 0, positions: Positions | None = None, part: str = "block", bos: bool = True
) -> LLM:
    llm = LLM("tiny", [1, 2], positions=positions, part=part)  # type: ignore[arg-type]
    return llm.adopt(decoder(family, seed=seed), letters(bos=bos))


@pytest.fixture(scope="module")
def llm() -> LLM:
    return tiny()


def fitted(llm: LLM, make: Make = MeanDifference) -> dict[str, nn.Module]:
    return {site: laws.trained(make, rows(seed, d=32)) for seed, site in enumerate(llm.sites)}


def logits(model: nn.Module, tokenizer: object) -> torch.Tensor:
    tokenizer.padding_side = "right"  # type: ignore[attr-defined]
    encoded = tokenizer(PROMPTS, return_tensors="pt", padding=True)  # type: ignore[operator]
    return model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits


@pytest.mark.parametrize("make", VARIANTS.values(), ids=list(VARIANTS))
def test_every_method_comes_back_bit_for_bit(make: Make, llm: LLM, tmp_path: Path) -> None:
    figures = {"target_accuracy": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}}
    more = {"effect": figures, "drift": figures, "certificate": {"bound": 0.1, "reason": "so"}, "licence": "CC0-1.0"}
    made = vectors.of(llm, fitted(llm, make), 0.75, (0.5, 1.0), 16, task="t", data="00", warnings=["w"], **more)
    loaded = vectors.load(vectors.save(tmp_path / "a.safetensors", made))
    assert loaded.card == made.card
    h = torch.randn(5, 32)
    for mine, its in zip(made.maps, loaded.maps, strict=True):
        assert type(mine) is type(its)
        assert state(mine).keys() == state(its).keys()
        for name, value in state(mine).items():
            assert torch.equal(value, state(its)[name])
        for strength in (0.0, 0.3, 1.0, 4.0):
            assert torch.equal(mine(h, strength), its(h, strength))
    again = vectors.save(tmp_path / "b.safetensors", loaded)
    assert again.read_bytes() == (tmp_path / "a.safetensors").read_bytes()


@pytest.mark.parametrize("make", VARIANTS.values(), ids=list(VARIANTS))
def test_every_method_says_what_its_strength_means(make: Make) -> None:
    units_of = units(make(8))
    assert units_of == "none" if make(8).__class__.__name__ == "Identity" else len(units_of) > 10


def test_the_file_says_all_that_a_reader_needs(llm: LLM, tmp_path: Path) -> None:
    with safe_open(vectors.save(tmp_path / "a.safetensors", vectors.of(llm, fitted(llm), 2.0)), "pt") as file:
        card = json.loads(file.metadata()["lightning_steer"])
    assert [(s["layer"], s["part"], s["module"]) for s in card["sites"]] == [
        (1, "block", "model.layers.1"),
        (2, "block", "model.layers.2"),
    ]
    assert card["strength"]["units"] == "multiples of that difference"
    assert card["licence"] == "unspecified"
    assert {len(card["model"][name]) for name in ("configuration", "memory", "tokenizer")} == {64}


@pytest.mark.parametrize(
    "positions",
    [AllTokens(), PromptTokens(), LastPromptToken(), GeneratedTokens(), TokensFrom(-2), TokensFrom(1)],
    ids=lambda s: type(s).__name__,
)
def test_steering_with_a_file_is_steering_with_the_maps(positions: Positions, tmp_path: Path) -> None:
    llm = tiny(positions=positions)
    maps = fitted(llm)
    loaded = vectors.load(vectors.save(tmp_path / "a.safetensors", vectors.of(llm, maps, 0.75)))
    edits = {site: partial(method, strength=0.75) for site, method in maps.items()}
    plain = logits(llm.model, llm.tokenizer)
    with llm.steered(edits):
        expected = logits(llm.model, llm.tokenizer)
    with vectors.edit(llm.model, loaded):
        assert torch.equal(logits(llm.model, llm.tokenizer), expected)
    assert torch.equal(logits(llm.model, llm.tokenizer), plain)
    assert (expected - plain).abs().max() > 1e-3 or isinstance(positions, GeneratedTokens)
    words = llm.generate(PROMPTS, edits=edits, max_new_tokens=6)
    with vectors.edit(llm, loaded):
        assert llm.generate(PROMPTS, max_new_tokens=6) == words


def test_a_strength_for_each_row(llm: LLM) -> None:
    vector = vectors.of(llm, fitted(llm), 1.0)
    with vectors.edit(llm, vector, torch.tensor([0.0, 1.0, 2.0])):
        together = logits(llm.model, llm.tokenizer)
    for row, strength in enumerate((0.0, 1.0, 2.0)):
        with vectors.edit(llm, vector, strength):
            torch.testing.assert_close(logits(llm.model, llm.tokenizer)[row], together[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), -float("inf"), torch.tensor([0.0, torch.nan, 1.0])])
def test_a_strength_that_is_no_number(strength: torch.Tensor | float, llm: LLM) -> None:
    plain, vector = logits(llm.model, llm.tokenizer), vectors.of(llm, fitted(llm), 1.0)
    wrong = "(nan|-?inf)$"
    with (
        pytest.raises(ValueError, match=f"strength must be a finite number, not {wrong}"),
        vectors.edit(llm, vector, strength),
    ):
        raise AssertionError("steered with it")
    assert torch.equal(logits(llm.model, llm.tokenizer), plain)


def test_nothing_stays_behind_when_the_block_fails(llm: LLM) -> None:
    plain = logits(llm.model, llm.tokenizer)
    with pytest.raises(KeyError, match="mine"), vectors.edit(llm, vectors.of(llm, fitted(llm), 1.0)):
        raise KeyError("mine")
    assert torch.equal(logits(llm.model, llm.tokenizer), plain)


@pytest.mark.parametrize("part", ["attention", "mlp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_parts_of_blocks_are_found_in_every_family(family: str, part: str) -> None:
    children = dict(decoder(family).get_submodule(blocks(decoder(family)))[1].named_children())
    if not children.keys() & set(PARTS[part]):
        pytest.skip(f"{family} has no {part} of its own")
    llm = tiny(family, part=part)
    vector = vectors.of(llm, fitted(llm), 1.0)
    nameless = [site._replace(module="") for site in vector.card.sites]
    vector = vector._replace(card=vector.card._replace(sites=nameless))
    with llm.steered(dict(zip(llm.sites, vector.maps, strict=True))):
        expected = logits(llm.model, llm.tokenizer)
    with vectors.edit(llm, vector):
        assert torch.equal(logits(llm.model, llm.tokenizer), expected)


# ---- another model


@pytest.fixture(scope="module")
def vector(llm: LLM) -> vectors.SteeringVector:
    return vectors.of(llm, fitted(llm), 1.0)


def refused(vector: vectors.SteeringVector, model: nn.Module, match: str, **more: object) -> None:
    with pytest.raises(ValueError, match=match), vectors.edit(model, vector, **more):  # type: ignore[arg-type]
        raise AssertionError("steered another model")


def test_other_weights_are_refused_and_can_be_asked_for(vector: vectors.SteeringVector) -> None:
    other = tiny(seed=1)
    refused(vector, other, "is another model .its weights are others.: load the model that it was fitted on")
    refused(vector, other.model, "its weights are others")
    plain = logits(other.model, other.tokenizer)
    with vectors.edit(other, vector, other_model=True):
        assert not torch.equal(logits(other.model, other.tokenizer), plain)


def test_a_single_changed_weight_is_refused_also_after_the_model_was_known(vector: vectors.SteeringVector) -> None:
    changed = tiny()
    with vectors.edit(changed, vector):
        pass
    with torch.no_grad():
        changed.model.get_input_embeddings().weight[7, 3] += 1e-3
    refused(vector, changed, "its weights are others")


def test_another_tokenizer_is_refused(vector: vectors.SteeringVector) -> None:
    refused(vector, tiny(bos=False), "its tokenizer is another")
    refused(vector, tiny().model, "its tokenizer is another", tokenizer=letters(bos=False))
    with vectors.edit(tiny().model, vector):  # not known, not compared
        pass


def test_another_architecture_is_refused_even_if_asked_for(vector: vectors.SteeringVector) -> None:
    refused(vector, tiny("gpt2"), "its configuration is another")
    wide = LLM("wide", 1).adopt(decoder("gpt2", n_embd=64), letters())
    refused(vector, wide, "width 32 at block 1, but GPT2LMHeadModel has 4 blocks of width 64", other_model=True)
    deep = vector.card._replace(sites=[vector.card.sites[0]._replace(layer=9), vector.card.sites[1]])
    refused(vector._replace(card=deep), tiny(), "at block 9, but", other_model=True)


@pytest.mark.parametrize("entry", ["use_cache", "output_hidden_states"])
def test_what_a_model_returns_besides_is_not_what_it_computes(entry: str, vector: vectors.SteeringVector) -> None:
    again = tiny()
    setattr(again.model.config, entry, not getattr(again.model.config, entry))
    with vectors.edit(again, vector):
        pass


def test_the_same_files_in_another_precision_are_the_same_model(tmp_path: Path) -> None:
    decoder("llama").save_pretrained(tmp_path / "m")
    letters().save_pretrained(tmp_path / "m")
    full, half = (LLM(str(tmp_path / "m"), [1, 2], dtype=dtype) for dtype in ("float32", "bfloat16"))
    full.load()
    half.load()
    vector = vectors.of(full, fitted(full), 1.0)
    with vectors.edit(half, vector):
        assert logits(half.model, half.tokenizer).dtype == torch.bfloat16
    with vectors.edit(half.model, vector):
        pass
    decoder("llama", seed=1).save_pretrained(tmp_path / "m")
    refused(vector, half, "its weights are others")


def test_a_toy_network_is_known_too(
    toy_backbone: ToyBackbone, toy_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    maps = {"layers.2": MeanDifference(toy_backbone.width("layers.2")).fit(rows(d=toy_backbone.width("layers.2")))}
    vector = vectors.load(vectors.save(tmp_path / "a.safetensors", vectors.of(toy_backbone, maps, 1.0)))
    network, x = toy_backbone.get_submodule("network"), torch.randn(3, 24)
    with vectors.edit(network, vector):
        steered = network(x)
    assert not torch.equal(network(x), steered)
    other = ToyBackbone(str(toy_checkpoints["projection"]))
    other.load()
    refused(vector, other.get_submodule("network"), "its weights are others")


# ---- what is not a vector file


def test_what_cannot_be_saved_is_refused(llm: LLM, tmp_path: Path) -> None:
    maps = fitted(llm)
    with pytest.raises(ValueError, match="one kind of map"):
        vectors.of(llm, {llm.sites[0]: maps[llm.sites[0]], llm.sites[1]: Ridge(32)}, 1.0)
    with pytest.raises(ValueError, match="one kind of map"):
        vectors.of(llm, {"model.layers.9": maps[llm.sites[0]]}, 1.0)
    with pytest.raises(ValueError, match="not fitted"):
        vectors.save(tmp_path / "a.safetensors", vectors.of(llm, {llm.sites[0]: LEACE(32)}, 1.0))
    with pytest.raises(ValueError, match="JSON"):
        vectors.save(tmp_path / "a.safetensors", vectors.of(llm, maps, 1.0, effect={"x": object()}))
    with pytest.raises(ValueError, match="JSON"):
        vectors.save(tmp_path / "a.safetensors", vectors.of(llm, maps, float("nan")))
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_nothing(llm: LLM, tmp_path: Path) -> None:
    (tmp_path / "taken.safetensors").mkdir()
    with pytest.raises(ValueError, match=r"taken\.safetensors is a folder, not a plain file"):
        vectors.save(tmp_path / "taken.safetensors", vectors.of(llm, fitted(llm), 1.0))
    assert [path.name for path in tmp_path.iterdir()] == ["taken.safetensors"]


def test_a_claimed_size_is_not_allocated(llm: LLM, tmp_path: Path) -> None:
    vector = vectors.of(llm, {llm.sites[0]: LEACE(32).fit(rows(d=32))}, 1.0)
    huge = vector.card.sites[0]._replace(width=1 << 30)  # 2 ** 62 bytes of matrix
    path = vectors.save(tmp_path / "a.safetensors", vector._replace(card=vector.card._replace(sites=[huge])))
    with pytest.raises(ValueError, match="are not those of LEACE of width 1073741824"):
        vectors.load(path)


# ---- from a run


@pytest.fixture(scope="module")
def run(toy_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of a finished toy run."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "configs").symlink_to(ROOT / "configs")
    target = folder / "checkpoints/toy/projection/best.ckpt"
    target.parent.mkdir(parents=True)
    target.write_bytes(toy_checkpoints["projection"].read_bytes())
    tiny = [f"--data.init_args.{name}={value}" for name, value in {**WORLD, "test_rows": 20}.items()]
    few = ["--model.init_args.random_draws=2", "--model.init_args.resamples=50", "--trainer.enable_progress_bar=false"]
    configs = ["--config", "configs/steer_toy.yaml", "--config", "configs/methods/mean_difference.yaml"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", *configs, *tiny, *few]) == 0
        assert main(["test", *configs, *tiny, *few]) == 0
    return folder


RUN = "checkpoints/steer_toy/mean_difference"


def test_a_run_is_exported_with_what_was_reported(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    before = {path for path in run.rglob("*") if path.is_file()}
    assert main(["export", RUN, "out/a.safetensors", "--licence", "CC-BY-4.0"]) == 0
    assert {path for path in run.rglob("*") if path.is_file()} - before == {run / "out/a.safetensors"}
    card = vectors.load("out/a.safetensors").card
    report = json.loads(Path("logs/steer_toy/mean_difference/report.json").read_text())
    assert card.effect["target_accuracy"] == report["metrics"]["target_accuracy"]
    assert card.drift["drift_kl"] == report["metrics"]["drift_kl"]
    assert card.strength.value == report["metrics"]["strength"]["value"]
    assert card.licence == "CC-BY-4.0"
    saved = torch.load(f"{RUN}/best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state(vectors.load("out/a.safetensors").maps[0])["vector"], saved["maps.0.vector"])
    first = Path("out/a.safetensors").read_bytes()
    assert main(["export", RUN, "out/a.safetensors", "--licence", "CC-BY-4.0"]) == 0
    assert Path("out/a.safetensors").read_bytes() == first, "the same run gives the same file"


def test_other_training_rows_have_another_fingerprint() -> None:
    from lightning_steer.data import ToyDataModule
    from lightning_steer.runs.row_keys import part_rows

    rows_of_seed, same, other = (part_rows(ToyDataModule(seed=seed, **WORLD)) for seed in (0, 0, 1))
    assert rows_of_seed == same != other


MISTAKES = {
    "no such source": (["export", "nope.safetensors", "a.safetensors"], "there is no file nope.safetensors"),
    "a folder that is no run": (["export", "logs", "a.safetensors"], "logs is no run's folder: it has no fit.yaml"),
    "a run that steers nothing": (["export", "foreign", "a.safetensors"], "fit.yaml is not of a run that steers"),
    "a target of no known kind": (["export", RUN, "a.bin"], "a.bin ends in none of .safetensors, .gguf, .pt"),
    "a toy for llama.cpp": (["export", RUN, "a.gguf"], "the plain form holds vectors of a decoder's residual stream"),
    "a toy for the harness": (["export", RUN, "a.pt"], "steers submodules of a language model by name"),
    "a config for a vector": (["export", f"{RUN}/fit.yaml", "a.safetensors"], "fit.yaml cannot be imported"),
    "no model": (["export", RUN, "a.safetensors", "--llm", "./nowhere"], "there is no folder './nowhere'"),
}


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES.values(), ids=list(MISTAKES))
def test_mistake(
    arguments: list[str], expected: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run)
    Path("foreign").mkdir(exist_ok=True)
    Path("foreign/fit.yaml").write_text("model: 3\n")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.startswith("lightning_steer: ")
    assert error.count("\n") == 1
    assert not list(run.glob("a.*"))


def test_a_given_vector_is_kept_as_what_it_is(llm: LLM, tmp_path: Path) -> None:
    method = ImportedVector(32)
    method.vector = torch.randn(32)
    loaded = vectors.load(vectors.save(tmp_path / "a.safetensors", vectors.of(llm, {llm.sites[0]: method}, 2.0)))
    assert loaded.card.method == "ImportedVector"
    h = torch.randn(4, 32)
    assert torch.equal(loaded.maps[0](h, 2.0), h + 2.0 * method.vector)


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_another_strength_has_no_interval(strength: float, llm: LLM, tmp_path: Path) -> None:
    made = vectors.of(llm, fitted(llm), 2.0, (1.0, 3.0), 16)
    exchange.export(made, tmp_path / "a.safetensors", "vector", strength)
    of_card = vectors.load(tmp_path / "a.safetensors").card.strength
    assert of_card.value == strength
    assert of_card.low == (1.0 if strength == 2.0 else None)
