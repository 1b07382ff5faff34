"""One of two processes is killed: the run ends with a sentence, and the same command goes on from what was saved."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from commands import Command
from conftest import WORLD

from lightning_steer.errors import sentences

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


def command(arguments: list[str], folder: Path, stop_at: tuple[str, int] | None = None) -> Command:
    """The command on two processes, the second one started by the first."""
    return Command(["lightning_steer", *arguments, *TWO], folder, stop_at)


def lose(rank: int, arguments: list[str], folder: Path, saved: str) -> str:
    """Kill one of two processes when the first has saved one such file, and is about to save the next.

    Waits for the other to end; returns what they printed.
    """
    with command(arguments, folder, (saved, 2)) as run:
        run.wait_for_stop()
        other = run.second()
        descriptor = os.pidfd_open(other)
        if rank:
            os.kill(other, signal.SIGKILL)
            run.go_on()
            code = run.wait()
        else:
            run.kill()
            code = run.process.returncode
        run.wait_for_other(descriptor)  # for ever, if it goes on alone
        assert code != 0
        return run.output


def reported(output: str) -> bool:
    """By us, where the loss was met in a message to the other process, or by Lightning, which had seen it first."""
    by_us = "lightning_steer: another process of this run was lost" in output
    return "Traceback" not in output and (by_us or "Forcefully terminating all other processes" in output)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the second process in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_fit_goes_on(rank: int, workshop: Path) -> None:
    with command([*FIT, "--experiment", "whole"], workshop / "whole") as run:
        run.finish()
    left = workshop / "checkpoints/lost/projection/unfinished.ckpt"
    output = lose(rank, [*FIT, "--experiment", "lost"], workshop / "lost", left.name)
    assert reported(output), output
    assert 0 < torch.load(left, weights_only=True)["epoch"] + 1 < 12
    with command([*FIT, "--experiment", "lost"], workshop / "again") as run:
        assert "Going on with the unfinished run lost/projection" in run.finish()
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
    options = [
        *PREDICT,
        "--data.init_args.file=texts.jsonl",
        f"--model.init_args.backbone.init_args.llm={pocket_decoder}",
    ]

    def shards(folder: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (workshop / folder).glob("*.safetensors")}

    with command([*options, "--data.init_args.folder=whole"], workshop / "first") as run:
        run.finish()
    every = shards("whole")
    assert len(every) == 300
    arguments = [*options, "--data.init_args.folder=lost"]
    output = lose(rank, arguments, workshop / "second", "*.safetensors")
    assert reported(output), output
    done = {path.name: path.stat().st_mtime_ns for path in (workshop / "lost").glob("*.safetensors")}
    assert 0 < len(done) < 300
    with command(arguments, workshop / "third") as run:
        run.finish()
    assert shards("lost") == every
    unchanged = [(workshop / "lost" / name).stat().st_mtime_ns == time for name, time in done.items()]
    assert all(unchanged), "what was finished is recorded once"


@pytest.mark.parametrize(
    "message",
    [
        "[gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:7345: Connection reset by peer.",
        "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:7345",
        "[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation to complete",
        "NCCL error in: ProcessGroupNCCL.cpp:3690, remote process exited or there was a network error",
    ],
)
def test_what_backends_say_of_it_is_known(message: str) -> None:
    assert (sentences.of_exception(RuntimeError(message)) or "").startswith("another process of this run was lost")
    assert sentences.of_exception(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
