"""To other tools and back: the same vector, and a refusal of whatever is none."""

import os
import struct
import warnings
from pathlib import Path
from typing import Any

import laws
import pytest
import torch
from conftest import rows
from decoders import FAMILIES, decoder, letters
from safetensors.torch import load_file, save_file
from test_methods import VARIANTS
from test_vectors import Make, fitted, logits, tiny
from torch import Tensor

from lightning_steer import vectors
from lightning_steer.__main__ import main
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import LastPromptToken
from lightning_steer.methods import LEACE, LearnedVector, MeanDifference
from lightning_steer.vectors import exchange, gguf
from lightning_steer.vectors.constant import by_layer, constant

FORMS = {"gguf": "a.gguf", "steered": "a.pt", "plain": "a.plain.safetensors"}


@pytest.fixture(scope="module")
def llm() -> LLM:
    return tiny()


@pytest.fixture(scope="module")
def vector(llm: LLM) -> vectors.SteeringVector:
    return vectors.of(llm, fitted(llm), 1.5, licence="CC0-1.0")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [MeanDifference, LearnedVector])
def test_there_and_back_steers_the_same(form: str, kind: Make, llm: LLM, tmp_path: Path) -> None:
    made = vectors.of(llm, fitted(llm, kind), 1.5)
    with vectors.edit(llm, made):
        expected = logits(llm.model, llm.tokenizer)
    lost = exchange.export(made, tmp_path / FORMS[form], form)
    assert lost[0].startswith("The strength 1.5 (multiples of th")
    vector = exchange.read(tmp_path / FORMS[form])
    assert vector.card.source == str(tmp_path / FORMS[form])
    for strength, close in ((None, True), (0.5, False)):
        with vectors.edit(llm, vector, strength):
            steered = logits(llm.model, llm.tokenizer)
        assert torch.allclose(steered, expected, rtol=1e-5, atol=1e-5) == close
    again = vectors.load(vectors.save(tmp_path / "own.safetensors", vector))
    assert all(torch.equal(a, b) for a, b in zip(by_layer(vector).values(), by_layer(again).values(), strict=True))


@pytest.mark.parametrize("form", ["gguf", "plain"])
def test_the_card_of_the_model_and_the_rows_is_kept(form: str, vector: vectors.SteeringVector, tmp_path: Path) -> None:
    made = vector._replace(card=vector.card._replace(data="aa", selection="bb"))
    lost = exchange.export(made, tmp_path / FORMS[form], form)
    assert not any("no room for the card" in sentence for sentence in lost)
    imported = exchange.read(tmp_path / FORMS[form])
    assert imported.card.model == vector.card.model
    assert (imported.card.licence, imported.card.data, imported.card.selection) == ("CC0-1.0", "aa", "bb")
    with pytest.raises(ValueError, match="its weights are others"), vectors.edit(tiny(seed=1), imported):
        pass


def test_what_cannot_be_compared_is_said(vector: vectors.SteeringVector, llm: LLM, tmp_path: Path) -> None:
    save_file({"1": torch.ones(32)}, tmp_path / "foreign.safetensors")
    foreign = exchange.read(tmp_path / "foreign.safetensors")
    with pytest.warns(UserWarning, match="names no model: it was not compared") as seen, vectors.edit(llm, foreign):
        pass
    assert seen[0].filename == __file__
    with pytest.warns(UserWarning, match="the tokenizer of tiny and .* not compared"), vectors.edit(llm.model, vector):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model, tokenizer in ((llm, None), (llm.model, llm.tokenizer)):
            with vectors.edit(model, vector, tokenizer=tokenizer):
                pass
        with vectors.edit(llm, foreign, other_model=True):
            pass


def test_gguf_is_read_by_the_gguf_package(vector: vectors.SteeringVector, tmp_path: Path) -> None:
    package = pytest.importorskip("gguf")
    exchange.export(vector, tmp_path / "a.gguf", "gguf")
    reader = package.GGUFReader(tmp_path / "a.gguf")
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert reader.get_field("controlvector.layer_count").contents() == 2
    expected = {f"direction.{layer}": value.numpy() for layer, value in by_layer(vector).items()}
    assert {t.name: t.data.tolist() for t in reader.tensors} == {name: v.tolist() for name, v in expected.items()}
    assert all(int(t.tensor_type) == 0 and t.data_offset % 32 == 0 for t in reader.tensors)
    writer = package.GGUFWriter(tmp_path / "theirs.gguf", "controlvector")  # as repeng writes it
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", 2)
    writer.add_array("more", ["a", "b"])
    writer.add_array("numbers", [1, 2, 3])
    for name, value in expected.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    by_peer = by_layer(exchange.read(tmp_path / "theirs.gguf"))
    assert {f"direction.{layer}": value.tolist() for layer, value in by_peer.items()} == {
        name: value.tolist() for name, value in expected.items()
    }


def test_gguf_is_laid_out_as_its_specification_says(vector: vectors.SteeringVector) -> None:
    """Against the published layout, read by hand: no reader of ours."""
    content = exchange.WRITERS["gguf"](vector, 1.0)
    assert content[:4] == b"GGUF"
    assert struct.unpack("<IQQ", content[4:24]) == (3, 2, 8)
    length = struct.unpack("<Q", content[24:32])[0]
    assert content[32 : 32 + length] == b"general.architecture"
    name = content.index(b"direction.1")
    assert struct.unpack("<IQIQ", content[name + 11 : name + 35]) == (1, 32, 0, 0)
    values = b"".join(struct.pack("<32f", *by_layer(vector, 1.0)[layer].tolist()) for layer in (1, 2))
    assert content.endswith(values)
    assert (len(content) - len(values)) % 32 == 0


def test_gguf_says_what_it_does_in_typed_keys(vector: vectors.SteeringVector, tmp_path: Path) -> None:
    package = pytest.importorskip("gguf")
    exchange.export(vector, tmp_path / "a.gguf", "gguf")
    fields = package.GGUFReader(tmp_path / "a.gguf").fields
    kinds = {"operation": ("add", "STRING"), "site": ("block_output", "STRING"), "layer_base": (0, "UINT32")}
    for key, (value, kind) in kinds.items():
        field = fields[f"controlvector.{key}"]
        assert (field.contents(), [t.name for t in field.types]) == (value, [kind])


SAYS = {
    "another operation": ("controlvector.operation", "ablate"),
    "another site": ("controlvector.site", "mlp_output"),
    "counted from 1": ("controlvector.layer_base", 1),
    "a number as text": ("controlvector.layer_base", "0"),
    "text as a number": ("controlvector.operation", 0),
}


@pytest.mark.parametrize(("key", "value"), SAYS.values(), ids=list(SAYS))
def test_gguf_that_says_something_else_is_refused(
    key: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(gguf.MEANING, key, value)
        (tmp_path / "a.gguf").write_bytes(gguf.encode({1: torch.ones(4)}, "llama", {}))
    with pytest.raises(ValueError, match=f"its {key} is '{value}', where only .* is read: it steers otherwise"):
        exchange.read(tmp_path / "a.gguf")


def test_block_0_of_other_tools_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    content = gguf.encode({1: torch.ones(4), 2: 2 * torch.ones(4)}, "", {})  # two names of the same length
    Path("theirs.gguf").write_bytes(content.replace(b"direction.1", b"direction.0"))
    assert main(["export", "theirs.gguf", "own.safetensors"]) == 0
    assert "direction.0 is read as added to the output of block 0" in capsys.readouterr().out
    vector = vectors.load("own.safetensors")
    assert [site.layer for site in vector.card.sites] == [0, 2]
    assert vector.card.warnings == [gguf.BLOCK_0]
    assert main(["export", "own.safetensors", "again.gguf"]) == 2
    assert "llama.cpp cannot steer block 0" in capsys.readouterr().err
    Path("one.gguf").write_bytes(content)
    assert exchange.read(Path("one.gguf")).card.warnings == []


def test_a_pointer_is_no_vector(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 173632\n")
    with pytest.raises(ValueError, match="a pointer of Git LFS"):
        exchange.read(tmp_path / "a.gguf")


@pytest.mark.skipif(
    "LIGHTNING_STEER_DATA" not in os.environ, reason="LIGHTNING_STEER_DATA names no folder of real data"
)
def test_real_control_vectors_of_easysteer() -> None:
    """All 28 blocks of a Qwen 2.5 of width 1,536, as the gguf package reads them."""
    package, folder = pytest.importorskip("gguf"), Path(os.environ["LIGHTNING_STEER_DATA"]) / "gguf"
    for name in ("happy_diffmean.gguf", "style-probe.gguf"):
        vector = exchange.read(folder / name)
        assert [site.layer for site in vector.card.sites] == list(range(28))
        assert vector.card.warnings == [gguf.BLOCK_0]
        by_peer = {t.name: torch.from_numpy(t.data.copy()) for t in package.GGUFReader(folder / name).tensors}
        assert all(torch.equal(by_peer[f"direction.{k}"], v) for k, v in by_layer(vector).items())
        with pytest.raises(ValueError, match="cannot steer block 0"):
            exchange.WRITERS["gguf"](vector, 1.0)
    with pytest.raises(ValueError, match="a pointer of Git LFS"):
        exchange.read(folder / "lfs_pointer.gguf")


@pytest.mark.parametrize("half", [1, 30])
def test_half_precision_vectors_of_others_are_read(half: int, vector: vectors.SteeringVector) -> None:
    dtype = gguf.DTYPES[half]
    content = gguf.encode({1: torch.arange(16.0)}, "llama", {})
    offset = content.index(b"direction.1") + 11
    values = torch.arange(16.0).to(dtype)
    changed = content[:offset] + struct.pack("<IQIQ", 1, 16, half, 0) + content[offset + 24 : -64]
    decoded, _ = gguf.decode(changed + values.view(torch.uint8).numpy().tobytes())
    assert torch.equal(decoded[1], torch.arange(16.0))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_harness_finds_its_modules_in_every_family(family: str, tmp_path: Path) -> None:
    llm = tiny(family)
    exchange.export(vectors.of(llm, fitted(llm), 2.0), tmp_path / "a.pt", "steered")
    saved = torch.load(tmp_path / "a.pt", weights_only=True)
    for (name, entry), site in zip(saved.items(), llm.sites, strict=True):
        assert llm.model.base_model.get_submodule(name) is llm.model.get_submodule(site)
        assert entry["action"] == "add"
        assert entry["steering_coefficient"] == 2.0


@pytest.mark.parametrize("make", VARIANTS.values(), ids=list(VARIANTS))
def test_what_is_exported_is_all_that_the_method_does(make: Make) -> None:
    """A method is either a vector, for any activation, or refused."""
    method = laws.trained(make, rows(d=8))
    try:
        exported = constant(method, 1.5)
    except ValueError:
        assert set(method.state_dict()) != {"vector", "_extra_state"}
    else:
        h = 30 * torch.randn(500, 8)
        torch.testing.assert_close(method(h, 1.5), h + exported)


class SparesSomeRows(MeanDifference):
    """A vector that is added to half of all rows."""

    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return super().shift(h, strength) * (h[..., :1] > 0)


class Rotates(MeanDifference):
    def shift(self, h: Tensor, strength: Tensor | float) -> Tensor:
        return strength * self.vector.flip(-1).unsqueeze(-2)


@pytest.mark.parametrize("kind", [SparesSomeRows, Rotates, LEACE])
def test_what_is_no_vector_is_not_exported_as_one(kind: Make, llm: LLM, tmp_path: Path) -> None:
    made = vectors.of(llm, {llm.sites[0]: kind(32).fit(rows(d=32))}, 1.0)
    for form, name in FORMS.items():
        with pytest.raises(ValueError, match="no other tool can"):
            exchange.export(made, tmp_path / name, form)
    assert not list(tmp_path.iterdir())


def test_what_llama_cpp_cannot_do_is_said(tmp_path: Path) -> None:
    llm = LLM("tiny", [0], positions=LastPromptToken()).adopt(decoder("llama"), letters())
    made = vectors.of(llm, fitted(llm), 1.0)
    with pytest.raises(ValueError, match="cannot steer block 0"):
        exchange.export(made, tmp_path / "a.gguf", "gguf")
    assert "LastPromptToken tokens; the receiving tool steers every token" in " ".join(
        exchange.export(made, tmp_path / "a.pt", "steered")
    )
    mlp = tiny(part="mlp")
    with pytest.raises(ValueError, match=r"the mlp of model\.layers\.1\.mlp: the plain form"):
        exchange.export(vectors.of(mlp, fitted(mlp), 1.0), tmp_path / "b.gguf", "gguf")


@pytest.mark.parametrize("name", ["3", "layer.3", "layers_3", "layer-3", "direction.3", "block.3", "h.3"])
def test_names_of_layers(name: str, tmp_path: Path) -> None:
    save_file({name: torch.arange(4.0)}, tmp_path / "a.safetensors")
    assert {layer: v.tolist() for layer, v in by_layer(exchange.read(tmp_path / "a.safetensors")).items()} == {
        3: [0, 1, 2, 3]
    }


def test_dictionaries_of_torch(tmp_path: Path) -> None:
    torch.save({5: torch.ones(4), 6: torch.zeros(4)}, tmp_path / "a.pt")
    assert list(by_layer(exchange.read(tmp_path / "a.pt"))) == [5, 6]


REFUSED: dict[str, tuple[Any, str]] = {
    "names that are no layers": ({"bias": torch.ones(4)}, "'bias' is not the number of a layer"),
    "the same layer twice": ({"layer.3": torch.ones(4), 3: torch.ones(4)}, "layer 3 is there twice"),
    "other widths": ({1: torch.ones(4), 2: torch.ones(5)}, "layer 2 has 5 values, and the first one has 4"),
    "a matrix": ({1: torch.ones(4, 4)}, "'layer 1' is no vector"),
    "not finite": ({1: torch.tensor([1.0, torch.inf])}, "'layer 1' holds NaN or infinite values"),
    "whole numbers": ({1: torch.ones(4).long()}, "'layer 1' is no vector"),
    "sparse": ({1: torch.ones(4).to_sparse()}, "it names 'torch._utils _rebuild_sparse_tensor'"),
    "longer than its storage": (
        {1: torch.zeros(1).expand(1 << 40)},
        "its tensors claim 4398046511104 bytes",
    ),
    "nothing": ({}, "it holds no vector"),
    "a list": ([torch.ones(4)], "it holds a list, not a dictionary"),
    "clamped": (
        {"layers.3": {"steering_vector": torch.ones(4), "action": "clamp"}},
        "'layers.3' is steered by 'clamp'",
    ),
    "one head": (
        {"layers.3": {"steering_vector": torch.ones(4), "head_index": 2}},
        "only plain added vectors are read",
    ),
    "not a block": ({"embed": {"steering_vector": torch.ones(4)}}, "'embed' names no decoder block"),
    "no coefficient": (
        {"layers.3": {"steering_vector": torch.ones(4), "steering_coefficient": "2"}},
        "not of type int or float",
    ),
}


@pytest.mark.parametrize(("content", "expected"), REFUSED.values(), ids=list(REFUSED))
def test_what_is_no_vector_is_not_imported(content: Any, expected: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=expected.replace("(", "\\(")) as error:
        exchange.read(tmp_path / "a.pt")
    assert str(error.value).startswith(f"{tmp_path / 'a.pt'} cannot be imported: ")


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "attacked",))

    torch.save({1: torch.ones(4), 2: Attack()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="getattr', which is no tensor and no plain value"):
        exchange.read(tmp_path / "a.pt")
    assert not (tmp_path / "attacked").exists()
    import pickle

    (tmp_path / "b.pt").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ValueError, match="cannot be imported"):
        exchange.read(tmp_path / "b.pt")
    assert not (tmp_path / "attacked").exists()


def test_the_command_line_there_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    decoder("llama").save_pretrained("m")
    letters().save_pretrained("m")
    llm = LLM("m", [1, 2])
    llm.load()
    made = vectors.of(llm, fitted(llm), 1.5)
    vectors.save("a.safetensors", made)
    assert main(["export", "a.safetensors", "a.gguf", "--strength", "2"]) == 0
    assert "The strength 2 (multiples of that difference) is multiplied in" in capsys.readouterr().out
    assert main(["export", "a.gguf", "b.safetensors", "--llm", "m"]) == 0
    bound = vectors.load("b.safetensors")
    assert [site.module for site in bound.card.sites] == ["model.layers.1", "model.layers.2"]
    assert bound.card.model == made.card.model
    with vectors.edit(llm, bound):
        back = logits(llm.model, llm.tokenizer)
    with vectors.edit(llm, made, 2.0):
        torch.testing.assert_close(logits(llm.model, llm.tokenizer), back, rtol=1e-5, atol=1e-5)
    assert main(["export", "b.safetensors", "b.pt"]) == 0
    assert main(["export", "b.safetensors", "c.safetensors", "--format", "plain"]) == 0
    assert sorted(load_file("c.safetensors")) == ["1", "2"]
    decoder("llama", seed=1).save_pretrained("other")
    letters().save_pretrained("other")
    assert main(["export", "a.gguf", "d.safetensors", "--llm", "other"]) == 2
    assert main(["export", "a.safetensors", "a.safetensors"]) == 2
    assert not Path("d.safetensors").exists()
