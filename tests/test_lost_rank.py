"""One of two processes is killed: the run ends with a sentence, and the same command goes on from what was saved."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, WORLD

from lightning_steer import refusal

TWO = [
    "--trainer.devices=2",
    "--trainer.strategy=ddp",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
]
FIT = [
    *("fit", "--config", "configs/toy.yaml", *(f"--data.init_args.{name}={value}" for name, value in WORLD.items())),
    *("--model.init_args.widths", "[32,32,16,32]", "--data.init_args.batch_size=16", "--data.init_args.test_rows=50"),
    *("--trainer.max_epochs=12", "--data.init_args.steps_per_epoch=60"),
]
PREDICT = ["predict", "--config", "configs/cache.yaml", "--data.init_args.texts_per_shard=8"]


def start(arguments: list[str], said: Path) -> subprocess.Popen[bytes]:
    """The command in a process of its own, which starts the second one; what both say goes to a file."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lightning_steer", *arguments, *TWO]
    with said.open("wb") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)


def second(process: subprocess.Popen[bytes]) -> int:
    """Id of the process that the first one has started."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError("there is no second process")


def gone(pid: int) -> bool:
    """Whether a process has ended, or is about to be buried."""
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "zombie" in status.read_text()


def lose(rank: int, arguments: list[str], partly: Callable[[], bool], said: Path) -> str:
    """Kill one process as soon as something is saved, and wait for the other; returns what they said."""
    process = start(arguments, said)
    while not partly() and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, said.read_text()
    other = second(process)
    os.kill(other if rank else process.pid, signal.SIGKILL)
    code = process.wait()
    while not gone(other):  # for ever, if the second process goes on alone
        time.sleep(0.05)
    assert code != 0
    return said.read_text()


def told(said: str) -> bool:
    """By us, where the loss was met in a message to the other process, or by Lightning, which had seen it first."""
    ours = "lightning_steer: another process of this run was lost" in said
    return "Traceback" not in said and (ours or "Forcefully terminating all other processes" in said)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the second process in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_fit_goes_on(rank: int, workshop: Path) -> None:
    whole = start([*FIT, "--experiment", "whole"], workshop / "whole.txt")
    assert whole.wait() == 0, (workshop / "whole.txt").read_text()
    left = workshop / "checkpoints/lost/projection/unfinished.ckpt"
    said = lose(rank, [*FIT, "--experiment", "lost"], left.exists, workshop / "lost.txt")
    assert told(said), said
    assert 0 < torch.load(left, weights_only=True)["epoch"] + 1 < 12
    again = start([*FIT, "--experiment", "lost"], workshop / "again.txt")
    assert again.wait() == 0, (workshop / "again.txt").read_text()
    assert "Going on with the unfinished run lost/projection" in (workshop / "again.txt").read_text()
    assert not left.exists()
    states = [
        torch.load(workshop / f"checkpoints/{name}/projection/best.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "lost")
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the second process in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_cache_goes_on(rank: int, pocket_decoder: Path, workshop: Path) -> None:
    lines = [json.dumps({"text": " ".join(["The hill bakers are kind."] * (1 + i % 9))}) for i in range(2400)]
    (workshop / "texts.jsonl").write_text("\n".join(lines))
    given = [
        *PREDICT,
        "--data.init_args.file=texts.jsonl",
        f"--model.init_args.backbone.init_args.llm={pocket_decoder}",
    ]

    def shards(folder: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (workshop / folder).glob("*.safetensors")}

    whole = start([*given, "--data.init_args.folder=whole"], workshop / "whole.txt")
    assert whole.wait() == 0, (workshop / "whole.txt").read_text()
    every = shards("whole")
    assert len(every) == 300
    arguments = [*given, "--data.init_args.folder=lost"]
    said = lose(rank, arguments, lambda: len(shards("lost")) > 1, workshop / "lost.txt")
    assert told(said), said
    done = {path.name: path.stat().st_mtime_ns for path in (workshop / "lost").glob("*.safetensors")}
    assert 0 < len(done) < 300
    again = start(arguments, workshop / "again.txt")
    assert again.wait() == 0, (workshop / "again.txt").read_text()
    assert shards("lost") == every
    kept = [(workshop / "lost" / name).stat().st_mtime_ns == at for name, at in done.items()]
    assert all(kept), "what was finished is recorded once"


@pytest.mark.parametrize(
    "said",
    [
        "[gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:7345: Connection reset by peer.",
        "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:7345",
        "[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation to complete",
        "NCCL error in: ProcessGroupNCCL.cpp:3690, remote process exited or there was a network error",
    ],
)
def test_what_backends_say_of_it_is_known(said: str) -> None:
    assert (refusal.of_exception(RuntimeError(said)) or "").startswith("another process of this run was lost")
    assert refusal.of_exception(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
