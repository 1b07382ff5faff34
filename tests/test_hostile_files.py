"""Crafted files are refused in a sentence before what they name is imported or what they claim allocated."""

import io
import resource
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_steer import checkpoint
from lightning_steer.__main__ import main
from lightning_steer.modules import fitted
from lightning_steer.networks import ToyBackbone
from lightning_steer.vectors import exchange, gguf, run, trusted
from lightning_steer.vectors.__main__ import main as export

TOY = {"class_path": "ToyBackbone", "init_args": {"checkpoint": "toy.ckpt"}}
METHOD = {"class_path": "lightning_steer.methods.MeanDifference"}
DATA = {"class_path": "ToyDataModule", "init_args": {"attributes": 4, "pairs": 8}}


@contextmanager
def little_memory(more: int = 1 << 30) -> Iterator[None]:
    """While the block runs, so many bytes more than now can be had; whatever wants more fails at once."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# ---- a run's configuration


def of_run(folder: Path, backbone: Any = TOY, method: Any = METHOD, data: Any = DATA) -> Path:
    folder.mkdir(exist_ok=True)
    model = {"class_path": "SteeringAdaptor", "init_args": {"backbone": backbone, "method": method}}
    (folder / "fit.yaml").write_text(yaml.safe_dump({"model": model, "data": data}))
    return folder


EVIL = {"class_path": "evil_steering.Backbone"}
CASES: dict[str, dict[str, Any]] = {
    "backbone": {"backbone": EVIL},
    "method": {"method": EVIL},
    "data": {"data": EVIL},
    "name alone": {"method": "evil_steering.method"},
    "scope": {"backbone": {"class_path": "LLM", "init_args": {"llm": "x", "positions": EVIL}}},
    "scope by name": {
        "backbone": {"class_path": "LLM", "init_args": {"llm": "x", "positions": "evil_steering.Positions"}}
    },
    "source": {"data": {"class_path": "BehaviourDataModule", "init_args": {"source": EVIL}}},
    "others": {"data": {"class_path": "ToyDataModule", "init_args": {"noise": EVIL}}},
    "others by name": {"data": {"class_path": "ToyDataModule", "init_args": {"noise": "evil_steering.x"}}},
    "in a list": {"backbone": {"class_path": "LLM", "init_args": {"llm": "x", "layers": [EVIL]}}},
    "dotted": {"data": {"class_path": "ToyDataModule", "init_args": {"a.class_path": "evil_steering.x"}}},
    "beside": {"method": {**METHOD, "dict_kwargs": {"x": EVIL}}},
    "under the project": {"method": {"class_path": "lightning_steer.evil_steering.Method"}},
    "installed": {"method": {"class_path": "torch.nn.Linear"}},
    "function": {"method": {"class_path": "os.system", "init_args": {"command": "true"}}},
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_names_classes_of_the_project_only(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evil_steering.py").write_text("from pathlib import Path\nPath('ran').write_text('code')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    folder = of_run(tmp_path / "run", **CASES[case])
    assert main(["export", str(folder), "x.safetensors"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("lightning_steer: ")
    assert message.count("\n") == 1
    assert "Traceback" not in message
    assert "evil_steering" not in sys.modules
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil_steering.py", "run"]


def test_what_runs_are_made_of_can_be_named() -> None:
    known = trusted.classes()
    for name in (
        "LLM",
        "lightning_steer.lm.language_model.LLM",
        "lightning_steer.methods.LEACE",
        "lightning_steer.lm.positions.LastPromptToken",
    ):
        assert name in known
    trusted.check(
        {"class_path": "LLM", "init_args": {"llm": "a.b/c", "positions": {"class_path": "LastPromptToken"}}}, "backbone"
    )
    assert all(kind.__module__.startswith("lightning_steer.") for kind in known.values())


def test_help_says_what_is_trusted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        export(["--help"])
    assert "only tensors, settings and classes of lightning_steer" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["fit.yaml", "best.ckpt"])
def test_a_run_is_read_in_its_own_folder(name: str, tmp_path: Path) -> None:
    folder = of_run(tmp_path / "run")
    (folder / name).unlink(missing_ok=True)
    (tmp_path / "outside").write_text("{}")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match=f"{name} is a link, not a plain file"):
        run.read(folder)


# ---- GGUF


def test_gguf_tensors_that_share_bytes_are_refused() -> None:
    length, count = 1 << 18, 3000
    text = gguf._text
    head = gguf.MAGIC + struct.pack("<IQQ", 3, count, 1)
    head += text("general.architecture") + struct.pack("<I", gguf.STRING) + text("controlvector")
    infos = b"".join(text(f"direction.{k}") + struct.pack("<IQIQ", 1, length, 0, 0) for k in range(1, count + 1))
    content = head + infos
    content += bytes(-len(content) % gguf.ALIGNMENT) + bytes(4 * length)
    with little_memory(), pytest.raises(ValueError, match=rf"claim {4 * count * length} bytes together, and it has"):
        gguf.decode(content)


# ---- checkpoints


def packed(pickled: bytes, data: bytes = b"", compression: int = zipfile.ZIP_STORED) -> bytes:
    """What torch.save would write, with a pickle of our own."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, part in (("data.pkl", pickled), ("byteorder", b"little"), ("data/0", data), ("version", b"3\n")):
            archive.writestr(f"archive/{name}", part)
    return content.getvalue()


def saved(value: Any) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def calls(name: str, argument: int) -> bytes:
    """A pickle of ``{"state_dict": NAME(ARGUMENT)}``."""
    module, _, function = name.rpartition(".")
    number = b"\x8a\x08" + argument.to_bytes(8, "little")
    return b"\x80\x02}X\x0a\x00\x00\x00state_dict" + f"c{module}\n{function}\n".encode() + number + b"\x85Rs."


LONG = b"\x8a\x05\x00\x00\x00\x00\x01"
STORED = b"\x80\x02}X\x0a\x00\x00\x00state_dictctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
STORED += b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + LONG + b"tQK\x00" + LONG + b"\x85K\x01\x85"
STORED += b"\x89ccollections\nOrderedDict\n)RtRs."
"""A tensor of 2^32 values in a storage that says it is as long, and holds 4 bytes."""

CLAIMS: dict[str, Callable[[], bytes]] = {
    "stride 0": lambda: saved({"state_dict": torch.zeros(1).expand(10**12)}),
    "strided": lambda: saved({"state_dict": torch.as_strided(torch.zeros(10**6), (10**6, 10**6), (0, 1))}),
    "one storage often": lambda: saved({"state_dict": [torch.zeros(1 << 18).view(512, 512)] * 1}
                                       | {str(i): value[:] for i in range(300) for value in [BIG]}),
    "tensor": lambda: packed(calls("torch.Tensor", 10**12)),
    "bytearray": lambda: packed(calls("builtins.bytearray", 10**12)),
    "storage": lambda: packed(calls("torch.UntypedStorage", 10**12)),
    "stored": lambda: packed(STORED, b"1234"),
    "bomb": lambda: packed(calls("torch.Size", 0), bytes(1 << 28), zipfile.ZIP_DEFLATED),
    "code": lambda: packed(calls("os.system", 1)),
}  # fmt: skip
BIG = torch.zeros(1 << 18)


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_checkpoint_cannot_claim_more_than_it_holds(claim: str, tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    path.write_bytes(CLAIMS[claim]())
    with little_memory():
        with pytest.raises(ValueError, match=r"it (names|cannot|is|claims)|its tensors claim"):
            checkpoint.load(path)
        for read in (lambda: ToyBackbone(str(path)).load(), lambda: fitted.load(path, None, {"layers.1": 8})):
            with pytest.raises(ValueError, match=r"best\.ckpt"):
                read()
        with pytest.raises(ValueError, match=r"best\.ckpt cannot be imported"):
            exchange.read(path)


@pytest.mark.parametrize(("command", "config"), [("fit", "toy"), ("validate", "toy"), ("test", "toy"), ("test", "sae")])
def test_no_command_hands_a_checkpoint_on_unread(
    command: str, config: str, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning reads a checkpoint by itself, with torch's own list of what may be named."""
    path = workshop / "best.ckpt"
    path.write_bytes(CLAIMS["stride 0"]())
    arguments = [command, "--config", f"configs/{config}.yaml", "--ckpt_path", str(path), "--trainer.accelerator=cpu"]
    assert main(arguments) == 2
    assert "best.ckpt is not a readable checkpoint" in capsys.readouterr().err


def test_an_honest_checkpoint_is_read_as_it_is(tmp_path: Path) -> None:
    tied = torch.randn(4, 3)
    state = {"a": tied, "b": tied, "none": torch.zeros(0), "turned": torch.randn(4, 3).T}
    value = {"state_dict": state, "epoch": 1, "x": (torch.ones(2), "y")}
    (tmp_path / "x.ckpt").write_bytes(saved(value))
    checkpoint_content = checkpoint.load(tmp_path / "x.ckpt")
    (tmp_path / "x.ckpt").write_bytes(bytes((tmp_path / "x.ckpt").stat().st_size))  # it does not look at the file again
    for name, tensor in state.items():
        assert torch.equal(checkpoint_content["state_dict"][name], tensor)
    assert checkpoint_content["state_dict"]["a"].data_ptr() == checkpoint_content["state_dict"]["b"].data_ptr()
    assert torch.equal(checkpoint_content["x"][0], torch.ones(2))
    assert checkpoint_content["epoch"] == 1
