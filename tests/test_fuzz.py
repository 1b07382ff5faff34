"""Whatever a file holds, reading it gives a result or one sentence: no crash, no code run, nothing else written."""

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import rows
from decoders import decoder, letters
from fuzz import bytes_changed, json_changed, refuses_or_reads, value_changed
from safetensors.torch import save as as_bytes

from lightning_steer.cache.manifest import Manifest, _sha256_of
from lightning_steer.cache.read import Cache
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods import LEACE, LoReFT, MeanDifference
from lightning_steer.networks import ToyBackbone
from lightning_steer.report.__main__ import main as report_main
from lightning_steer.vectors import SteeringVector, exchange, load, of, save
from lightning_steer.vectors.steer import module_of, positions_of

FEW, MANY = 300, 10_000
Make = Callable[[random.Random], bytes]


@pytest.fixture(scope="module")
def vector() -> SteeringVector:
    llm = LLM("tiny", [1, 2]).adopt(decoder("llama"), letters())
    figures = {"target_accuracy": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}}
    maps = {site: MeanDifference(32).fit(rows(d=32)) for site in llm.sites}
    return of(
        llm, maps, 1.5, (1.0, 2.0), 16, task="a task", data="ab" * 32, effect=figures, drift=figures, warnings=["w"]
    )


def with_card(vector: SteeringVector, folder: Path) -> Make:
    """A vector file whose card is changed, or its tensors, its safetensors header, or its bytes."""
    llm, maps = LLM("tiny", [1, 2]).adopt(decoder("llama"), letters()), {}
    files = []
    for kind in (MeanDifference, LEACE, partial(LoReFT, rank=3)):
        maps = {site: kind(32).fit(rows(d=32)) for site in llm.sites}
        files.append(save(folder / "whole.safetensors", of(llm, maps, 1.0)).read_bytes())
    (folder / "whole.safetensors").unlink()

    def make(chance: random.Random) -> bytes:
        content = chance.choice(files)
        size = int.from_bytes(content[:8], "little")
        header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
        kind = chance.randrange(3)
        if kind == 0:
            return bytes_changed(content, chance)
        if kind == 1:
            card = json_changed(json.loads(header["__metadata__"]["lightning_steer"]), chance)
            header["__metadata__"]["lightning_steer"] = card.decode("utf-8", "surrogatepass")
            text = json.dumps(header).encode()
        else:
            text = json_changed(header, chance)
        return len(text).to_bytes(8, "little") + text + data

    return make


def read_and_use(path: Path) -> None:
    """A vector that is read can also be used, or refused."""
    vector = load(path)
    h = torch.randn(3, vector.card.sites[0].width)
    for method in vector.maps:
        assert method(h, 0.5).shape == h.shape
    positions_of(vector.card)
    module_of(NETWORK, vector.card.sites[0])


NETWORK = decoder("llama")


def plain(chance: random.Random) -> bytes:
    content = as_bytes({"1": torch.randn(8), "layer.2": torch.randn(8)})
    if chance.random() < 0.5:
        return bytes_changed(content, chance)
    size = int.from_bytes(content[:8], "little")
    text = json_changed(json.loads(content[8 : 8 + size]), chance)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def torch_file(chance: random.Random) -> bytes:
    import io

    whole: dict[Any, Any] = {1: torch.ones(8), "layer.2": torch.zeros(8)}
    nested = {
        "layers.3": {"steering_vector": torch.ones(8), "steering_coefficient": 2.0, "action": "add", "bias": None}
    }
    odd = [
        torch.zeros(()),
        torch.zeros(2, 2),
        torch.ones(8).to_sparse(),
        torch.zeros(1).expand(1 << 40),
        torch.ones(8).int(),
    ]
    content, changed = io.BytesIO(), value_changed(chance.choice([{"1": 0, "2": 1}, nested]), chance)
    if isinstance(changed, dict) and chance.random() < 0.5:
        changed |= {chance.choice(["3", "layers.5", 7]): chance.choice([*odd, {"steering_vector": chance.choice(odd)}])}
    torch.save(changed if chance.random() < 0.5 else chance.choice([whole, nested]), content)
    return content.getvalue() if chance.random() < 0.3 else bytes_changed(content.getvalue(), chance)


def control_vector(vector: SteeringVector, chance: random.Random) -> bytes:
    content = exchange.WRITERS["gguf"](vector, 1.0)
    return bytes_changed(content, chance) if chance.random() < 0.97 else content


def report_of(chance: random.Random) -> bytes:
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}
    column = {key: [0.1, 0.2, None] for key in ("value", "low", "high")}
    row = {"target_accuracy": estimate, "drift_kl": estimate}
    whole = {
        "experiment": "e", "task": "t", "backbone": "b", "method": "M", "seed": 0, "versions": {"torch": "2"},
        "verdict": "v", "choice": "c", "warnings": ["w"], "metrics": {**row, "strength": estimate},
        "baselines": {"baseline": row, "random_control": row, "mean_ablation": row, "oracle_patch": row},
        "fitted_rows": row, "dose_response": {"measures": ["target_accuracy"], "unit": "share"},
        "curves": {"strength": {"x": [0.5, 1.0, 2.0], "target_accuracy": column, "drift_kl": column}},
        "profile": {"kl": column},
    }  # fmt: skip
    text = json_changed(whole, chance) if chance.random() < 0.8 else json.dumps(whole).encode()
    return text if chance.random() < 0.7 else bytes_changed(text, chance)


def read_report(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = report_main([str(path.parent), "--html"])
    output = capsys.readouterr()
    for name in ("report.html", "runs.md", "runs.csv"):
        (path.parent / name).unlink(missing_ok=True)
    if code:
        assert code == 2
        assert output.err.startswith("lightning_steer: ")
        assert output.err.count("\n") == 1
        raise ValueError(output.err)
    assert "<script" not in output.out


def manifest_of(chance: random.Random) -> bytes:
    sha = "0123456789ab" + "0" * 52
    origin = {
        "weights": sha, "memory": None, "configuration": sha, "precision": "auto", "tokenizer": sha, "template": None,
        "part": "block", "layers": [1], "positions": "LastPromptToken()", "each_token": False, "dtype": "float32",
        "count": 2,
        "texts": sha, "texts_per_shard": 2, "format": 1,
    }  # fmt: skip
    shards = [{"file": f"{sha[:12]}-00000-{sha[:12]}.safetensors", "sha256": sha, "rows": 2}]
    whole = {"origin": origin, "model": "m", "sites": ["layers.1"], "width": 8, "shards": shards}
    changed = value_changed(whole, chance) if chance.random() < 0.8 else whole
    if isinstance(changed, dict):
        changed = {**changed, "sha256": _sha256_of(changed)}  # a damaged file knows nothing of it; a hostile one does
    text = json.dumps(changed).encode()
    return text if chance.random() < 0.7 else bytes_changed(text, chance)


def read_manifest(path: Path) -> None:
    Manifest.read(path.parent)
    cache = Cache(path.parent)
    assert len(cache) >= 0
    cache.layer(1)


def toy_checkpoint(content: bytes, parts: Any, chance: random.Random) -> bytes:
    import io

    if chance.random() < 0.5:
        return bytes_changed(content, chance)
    saved = {**parts, "network": value_changed(parts["network"], chance)}
    if chance.random() < 0.3:
        saved["world"] = value_changed(parts["world"], chance)
    if chance.random() < 0.2:
        saved["state_dict"] = dict(list(parts["state_dict"].items())[: chance.randrange(4)])
    made = io.BytesIO()
    torch.save(saved, made)
    return made.getvalue()


def inputs(make: Make, count: int) -> Iterator[bytes]:
    return (make(random.Random(number)) for number in range(count))


FORMATS = ["vector", "plain", "torch", "gguf", "report"]
FORMATS += ["manifest", "checkpoint"]


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", FORMATS)
def test_format(
    form: str,
    count: int,
    vector: SteeringVector,
    toy_checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    whole = toy_checkpoints["none"].read_bytes()
    parts = {
        key: torch.load(toy_checkpoints["none"], weights_only=True)[key] for key in ("network", "world", "state_dict")
    }
    cases: dict[str, tuple[str, Callable[[Path], Any], Make]] = {
        "vector": ("x.safetensors", read_and_use, with_card(vector, tmp_path) if form == "vector" else plain),
        "plain": ("x.safetensors", exchange.read, plain),
        "torch": ("x.pt", exchange.read, torch_file),
        "gguf": ("x.gguf", exchange.read, partial(control_vector, vector)),
        "report": ("report.json", lambda path: read_report(path, capsys), report_of),
        "manifest": ("manifest.json", read_manifest, manifest_of),
        "checkpoint": ("x.ckpt", lambda path: ToyBackbone(str(path)).load(), partial(toy_checkpoint, whole, parts)),
    }
    name, read, make = cases[form]
    seen = refuses_or_reads(read, inputs(make, count), folder / name)
    assert sum(seen.values()) == count
    assert seen["refused"] > count // 10
    assert sorted(tmp_path.iterdir()) == [folder], "something was written outside the folder"
    (folder / name).unlink()
    assert not list(folder.iterdir()), "something was written that was not asked for"


def test_the_fuzzer_finds_a_reader_that_breaks(tmp_path: Path) -> None:
    def careless(path: Path) -> Any:
        return json.loads(path.read_bytes())["metrics"]["target_accuracy"]

    with pytest.raises(pytest.fail.Exception):
        refuses_or_reads(careless, inputs(report_of, 300), tmp_path / "report.json")
