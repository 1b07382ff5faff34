"""The configurations for many devices: as shipped, on CPU processes started by torchrun, they give what one gives."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy
from safetensors.torch import load_file

from lightning_steer.__main__ import main
from lightning_steer.lm.language_model import LLM
from lightning_steer.modules.fsdp import spread

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
FIT = [
    *("fit", "--config", "configs/pocket.yaml"),
    *(f"--model.init_args.architecture.{name}={value}" for name, value in {**TINY, "intermediate_size": 32}.items()),
    *("--data.init_args.steps_per_epoch=6", "--data.init_args.val_documents=20", "--trainer.max_epochs=2"),
    "--data.init_args.tokens_per_step=64",  # batches of 2 or 3 rows: the third process often has none
    *("--trainer.gradient_clip_val=0.1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
]
PROCESSES = {  # machines, processes on each, what the configuration is told besides
    "ddp": (1, 3, []),
    "ddp_nodes": (2, 1, []),
    "fsdp": (1, 3, ["--trainer.strategy.init_args.data_parallel_size=3"]),
}


def torchrun(nodes: int, processes: int, arguments: list[str]) -> None:
    """Several processes, on one machine or on what takes itself for several."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = [f"--nnodes={nodes}", "--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}", "--rdzv_id=test"]
    command = [sys.executable, "-m", "torch.distributed.run", *meeting, f"--nproc_per_node={processes}"]
    command += ["--local_addr=127.0.0.1", "-m", "lightning_steer", *arguments]
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launched = [
        subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(nodes)
    ]
    for process in launched:
        output, _ = process.communicate()
        assert process.returncode == 0, output


@pytest.mark.slow
def test_what_one_process_trains_many_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    assert main([*FIT, "--run=one"]) == 0
    reference = load_file("checkpoints/pocket/one/model.safetensors")
    for name, (nodes, processes, more) in PROCESSES.items():
        arguments = ["--config", f"configs/scale/{name}.yaml", *FIT[3:], f"--trainer.devices={processes}", *more]
        Path("named.yaml").write_text(f"run: {name}\n")  # torchrun takes --run for an option of its own
        torchrun(nodes, processes, [*FIT[:3], "--config", "named.yaml", *arguments])
        trained = load_file(f"checkpoints/pocket/{name}/model.safetensors")
        assert trained.keys() == reference.keys()
        for tensor, value in reference.items():
            assert torch.allclose(trained[tensor], value, atol=1e-4), f"{name}: {tensor}"


@pytest.mark.parametrize(
    ("strategy", "columns", "expected"),
    [
        (FSDPStrategy(), 1, "ModelParallelStrategy does the same and keeps it, see configs/scale/fsdp.yaml"),
        (ModelParallelStrategy(4, 2), 2, "tensor_parallel_size 1 and data_parallel_size 8, the number of processes"),
        (ModelParallelStrategy(8, 1), 1, "give ModelParallelStrategy save_distributed_checkpoint false"),
    ],
)
def test_what_would_give_something_else_is_refused(strategy: Strategy, columns: int, expected: str) -> None:
    strategy._device_mesh = {"tensor_parallel": SimpleNamespace(size=lambda: columns)}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=expected):
        spread(torch.nn.Module(), strategy, processes=8)


@pytest.mark.parametrize("strategy", [FSDPStrategy(), ModelParallelStrategy(2, 1)])
def test_steered_models_are_whole(strategy: object) -> None:
    data = SimpleNamespace(trainer=SimpleNamespace(world_size=2, strategy=strategy))
    with pytest.raises(
        ValueError, match=r"whole, one on each device, not under \w+: use strategy ddp, or, .* device_map"
    ):
        LLM("any").check(data)


def test_a_model_laid_out_over_devices_is_asked_of_accelerate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workshop: Path
) -> None:
    """As shipped, but for the GPU; accelerate is not among what the project installs."""
    monkeypatch.setitem(sys.modules, "accelerate", None)
    (workshop / "checkpoints").mkdir()
    (workshop / "checkpoints" / "pocket").symlink_to(ROOT / "checkpoints" / "pocket")
    paths = ["configs/steer_behaviour.yaml", "configs/methods/mean_difference.yaml", "configs/scale/device_map.yaml"]
    configs = [part for config in paths for part in ("--config", config)]
    assert main(["fit", *configs, "--trainer.accelerator=cpu"]) == 2
    assert "device_map needs accelerate: pip install accelerate" in capsys.readouterr().err
