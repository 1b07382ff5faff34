"""A model's own files decide neither which other files are read nor whose code runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from decoders import decoder, letters

from lightning_steer.lm import loading


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny model in two files."""
    decoder("llama").save_pretrained(tmp_path / "model", max_shard_size="20KB")
    letters().save_pretrained(tmp_path / "model")
    assert (tmp_path / "model/model.safetensors.index.json").is_file()
    return tmp_path / "model"


def configure(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch.load is asked for, which is never run."""
    seen: list[str] = []

    def load(path: Any, *_: Any, **__: Any) -> None:
        seen.append(str(path))
        raise AssertionError("torch.load")

    monkeypatch.setattr(torch, "load", load)
    return seen


@pytest.mark.parametrize("file", ["evil.bin", "../outside.safetensors", "/etc/x.safetensors", "a/b.safetensors", "", 3])
def test_an_index_names_safetensors_of_its_folder(
    file: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = opened(monkeypatch)
    index = model / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    name = next(iter(content["weight_map"]))
    first = model / content["weight_map"][name]
    (tmp_path / "outside.safetensors").write_bytes(first.read_bytes())
    torch.save({name: torch.zeros(1)}, model / "evil.bin")
    content["weight_map"] = {
        key: file if value == first.name else value for key, value in content["weight_map"].items()
    }
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json of .* names .* no safetensors file of its"):
        loading.load(str(model))
    assert not seen


def test_an_honest_index_is_read(model: Path) -> None:
    loaded, _ = loading.load(str(model))
    expected = decoder("llama").state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}', "{}"])
def test_a_damaged_index_is_refused(content: str, model: Path) -> None:
    (model / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json of .* is damaged"):
        loading.load(str(model))


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("name", ["someone/kernel", "someone/kernel@v1:f", "flash_attention_2", "paged|someone/kernel"])
def test_attention_is_not_fetched_because_a_model_says_so(
    key: str, name: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import modeling_utils

    def fetch(*given: Any, **_: Any) -> None:
        raise AssertionError(f"a kernel was asked for: {given}")

    monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", fetch)
    configure(model, **{key: name})
    loaded, _ = loading.load(str(model))
    assert loaded.config._attn_implementation in ("eager", "sdpa")


def test_an_attention_of_transformers_own_stays(model: Path) -> None:
    configure(model, attn_implementation="eager")
    assert loading.load(str(model))[0].config._attn_implementation == "eager"


def test_parts_of_a_configuration_are_looked_at_too() -> None:
    from transformers import Gemma3Config

    config = Gemma3Config(text_config={"attn_implementation": "someone/kernel"}, attn_implementation="eager")
    config.text_config._attn_implementation_internal = "someone/kernel"
    loading.tame(config)
    assert config.text_config._attn_implementation is None
    assert config._attn_implementation == "eager"


def test_a_configuration_does_not_name_another_file_of_weights(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = opened(monkeypatch)
    (model / "other.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"x": "evil.bin"}}))
    torch_file = model / "evil.bin"
    torch_file.write_bytes(b"PK")
    configure(model, transformers_weights="other.safetensors.index.json")
    loading.load(str(model))
    assert not seen
