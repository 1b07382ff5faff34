"""Put a plan together: the memory of a run by precision, what fits where, and what to change where it does not."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from lightning_steer.lm.head import at_once
from lightning_steer.plan.blank import Blank
from lightning_steer.plan.machine import Device
from lightning_steer.plan.phases import Needs

SPARE = 1.1
"""Memory that is asked for over what was counted: allocators keep some, and kernels need some."""

LEAST = 64
"""Tokens per batch, below which none are proposed."""


class Memory(NamedTuple):
    """Bytes of memory."""

    weights: float
    activations: float
    """Of the forward pass of the largest batch."""
    states: float
    """Of the states that are kept: at all sites while pairs are read, or of all copies while texts are compared."""
    head: float
    """Of the log-probabilities of all tokens."""
    cache: float
    """Of keys and values while text is generated."""
    peak: float
    """The most at once: the weights, and the most that any phase needs besides."""


class Plan(NamedTuple):
    """What a model needs in one precision."""

    dtype: torch.dtype
    memory: Memory
    block: float
    """Floating-point operations of a token in a block."""
    score: float
    """Those of a state in the vocabulary head."""


def plan(blank: Blank, needs: Needs) -> Plan:
    """Return what a model needs for a run whose largest batches are these."""
    state = blank.state()
    batch = blank.forward(*needs.batch)
    read = batch if needs.read == needs.batch else blank.forward(*needs.read)
    cached = needs.read[0] * needs.read[1] * needs.sites * state
    most = at_once(len(blank.decoder.embedding))
    scores = min(most, max(1, needs.scored))
    compared, scored = (blank.compared(min(most, needs.compared)) if needs.compared else None), blank.head(scores)
    copies = needs.compared * (needs.copies + 1) * state
    cache = blank.cache(*needs.generated) if all(needs.generated) else 0.0
    written = blank.head(max(1, needs.generated[0])).memory  # of each text the next token
    phases = [
        batch.memory,
        read.memory + cached,
        copies + (compared.memory if compared else 0),
        needs.batch[0] * needs.batch[1] * state + scored.memory,
        cache + max(written, blank.forward(*needs.generated).memory if cache else 0.0),
    ]
    head = max(scored.memory, compared.memory if compared else 0.0)
    weights = blank.weights
    memory = Memory(weights, batch.memory, max(cached, copies), head, cache, weights + max(phases))
    tokens = needs.batch[0] * needs.batch[1]
    return Plan(blank.dtype, memory, batch.flops / tokens / blank.decoder.depth, scored.flops / scores)


def proposals(
    memory: Memory,
    smaller: Callable[[], float],
    at: Callable[[int], float],
    tokens_per_batch: int,
    machine: Sequence[Device],
    program: float,
    trains: bool = False,
) -> list[str]:
    """Return for each device whether the run fits, and what to change where it does not.

    Args:
        memory: what the run needs as it was asked for.
        smaller: the peak in bfloat16, in bytes; the same if that is what was asked for.
        at: the peak at a number of tokens per batch, in bytes, as it was asked for.
        tokens_per_batch: as it was asked for.
        machine: the devices; the CPU comes first.
        program: memory of the program without a model, on the CPU, in bytes.
        trains: whether the run is of a method trained through the output, whose activations are kept.
    """
    sentences = []
    for device in machine:
        own = program if device.kind == "cpu" else 0.0
        needed = SPARE * memory.peak + own
        what = f"{device.name} ({size(device.free)} free of {size(device.total)})"
        if needed <= device.free:
            sentences.append(f"{what}: fits, needs {size(needed)}")
            continue
        remedy = _remedy(device, memory, smaller, at, tokens_per_batch, own)
        sentences.append(f"{what}: does not fit, needs {size(needed)}: {remedy}")
    gpus = [device for device in machine if device.kind == "cuda"]
    if len(gpus) > 1 and all(SPARE * memory.peak <= gpu.free for gpu in gpus):
        sentences.append(f"{len(gpus)} GPUs: a model on each, with --config configs/scale/ddp.yaml, divides the time")
    elif len(gpus) > 1 and SPARE * memory.peak <= sum(gpu.free for gpu in gpus):
        sentences.append(f"{len(gpus)} GPUs: it fits on all together, with --config configs/scale/device_map.yaml")
    if trains:
        sentences.append("this method is trained through the output: activations of all blocks are kept on top")
    return sentences


def _remedy(
    device: Device,
    memory: Memory,
    smaller: Callable[[], float],
    at: Callable[[int], float],
    tokens_per_batch: int,
    own: float,
) -> str:
    room = (device.free - own) / SPARE
    tokens = tokens_per_batch
    while memory.weights <= room and tokens > LEAST:
        tokens //= 2
        if at(tokens) <= room:
            return f"take tokens_per_batch {tokens} (of ls.LLM, or --model.backbone.tokens_per_batch)"
    if (half := smaller()) <= room:
        needed = size(SPARE * half + own)
        return f"take dtype bfloat16 (--dtype, or --model.backbone.dtype), which needs {needed}"
    if device.kind == "cuda":
        return "take device_map auto, which keeps in the CPU's memory what is left over, or load_in_4bit"
    return f"take a machine with {size(SPARE * min(half, memory.peak) + own)}, or a smaller model"


def size(memory: float) -> str:
    """Return an amount of memory with its unit (1 GB = 10^9 bytes), to three digits."""
    for unit, count in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if memory >= 0.9995 * count:
            return f"{memory / count:#.3g} {unit}".replace(". ", " ")
    return f"{memory:.0f} bytes"


def models(config: Any, dtype: torch.dtype, name: str) -> tuple[Blank, Blank]:
    """Return the model in this precision, and in the other of bfloat16 and float32."""
    other = torch.float32 if dtype != torch.float32 else torch.bfloat16
    return Blank(config, dtype, name), Blank(config, other, name)
