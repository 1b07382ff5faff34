"""The machine at hand: its free memory, and how fast it runs a model's blocks."""

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.lm import loading
from lightning_steer.lm.decoder import Decoder
from lightning_steer.lm.windows import layers_of

SECONDS = 20.0
"""Of a calibration, without making the blocks."""
SMALLEST = 8
"""Tokens of a timed batch that takes little more than reading the weights."""
LARGEST = 256
"""Tokens of a timed batch on a CPU, which larger ones do not make faster; a GPU takes a whole batch."""
CONTAINER = Path("/sys/fs/cgroup")


class Device(NamedTuple):
    """Where a model could run."""

    name: str
    """For people, such as ``CPU`` or ``NVIDIA H100``."""
    kind: str
    """``cpu`` or ``cuda``."""
    free: float
    """Memory that is free now, in bytes."""
    total: float


class Speed(NamedTuple):
    """Seconds that parts of a model take on a device."""

    block: float
    """For one token more through one block, in a batch."""
    call: float
    """For a batch through one block beside that: its weights are read, however few its tokens are."""
    head: float
    """For the log-probabilities of one state more."""
    head_call: float
    """For those of a batch beside that."""
    step: float
    """For the next token of a batch of texts, all blocks and the head."""
    rate: float
    """Floating-point operations in a second, in the blocks."""


def devices() -> list[Device]:
    """Return the CPU and all GPUs that torch sees."""
    devices = [Device("CPU", "cpu", *_memory())]
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        devices.append(Device(f"{torch.cuda.get_device_name(number)} ({number})", "cuda", free, total))
    return devices


def _memory() -> tuple[float, float]:
    """Return free and total memory of the machine, or of the container that this process runs in, in bytes."""
    try:
        total = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # not on this system
        return float("nan"), float("nan")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        free = total
    try:  # a container's limit; what it keeps of files is given back when memory is needed
        limit, used = (float((CONTAINER / name).read_text()) for name in ("memory.max", "memory.current"))
        counters = dict(line.split() for line in (CONTAINER / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or no limit
        return free, total
    return min(free, limit - used + float(counters.get("inactive_file", 0))), min(total, limit)


def resident() -> float:
    """Return the memory that this process occupies now, in bytes: Python, torch and transformers, and no model."""
    try:
        return float(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0.0


@torch.no_grad()
def calibrate(
    config: Any,
    dtype: torch.dtype,
    batch: tuple[int, int],
    generated: tuple[int, int],
    operations: float,
    device: str = "cpu",
    seconds: float = SECONDS,
) -> Speed:
    """Time two blocks of true size with random weights, the vocabulary head, and one step of generation.

    Args:
        config: the model's configuration.
        dtype: precision of the weights.
        batch: rows and tokens of a batch.
        generated: texts that are generated side by side, and the tokens of each before the next one.
        operations: floating-point operations of a token in a block.
        device: where to run.
        seconds: what the timing may take, split over what is timed.

    Raises:
        ValueError: two blocks and the head do not fit.
    """
    text, count = config.get_text_config(), min(2, config.get_text_config().num_hidden_layers)
    small = type(text)(**{k: v for k, v in layers_of(text, range(count)).items() if k != "model_type"})
    try:
        decoder = _random(small, dtype, device)
        rows, tokens = batch
        if device == "cpu":
            tokens = min(tokens, LARGEST)
            rows = min(rows, max(1, LARGEST // tokens))
        ids = torch.zeros(rows, tokens, dtype=torch.int64, device=device)
        few = torch.zeros(1, min(SMALLEST, ids.numel()), dtype=torch.int64, device=device)
        h = torch.zeros(min(LARGEST, ids.numel()), decoder.width, dtype=dtype, device=device)
        share = seconds / 6

        def blocks(ids: Tensor) -> float:
            return _time(lambda: decoder.base(input_ids=ids, use_cache=False), share, device) / count

        def head(states: int) -> float:
            return _time(lambda: decoder.logits(h[:states]).log_softmax(-1), share, device)

        call, block = _line((few.numel(), blocks(few)), (ids.numel(), blocks(ids)))
        single_head = head(1)
        head_call, state = _line((1, single_head), (len(h), head(len(h))))
        before = torch.zeros(generated, dtype=torch.int64, device=device)
        past = decoder.base(input_ids=before, use_cache=True).past_key_values
        last = decoder.base(input_ids=before[:, :1], use_cache=True, past_key_values=past)[0][:, -1]
        step = _time(lambda: decoder.base(input_ids=before[:, :1], use_cache=True, past_key_values=past), share, device)
        step = step / count * text.num_hidden_layers + _time(lambda: decoder.logits(last), share, device)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise UserError(
            f"two blocks and the vocabulary head do not fit into {device}: leave --calibrate out"
        ) from error
    return Speed(block, call, state, head_call, step, operations / block)


def _line(small: tuple[int, float], large: tuple[int, float]) -> tuple[float, float]:
    """Return the time of a call and of each token more, from two numbers of tokens and their times.

    Where the larger batch was the faster one, by chance, its time is taken to be that of its tokens alone.
    """
    (few, short), (many, long) = small, large
    each = (long - short) / (many - few) if many > few else 0.0
    if each <= 0 or short - few * each < 0:
        return 0.0, long / many
    return short - few * each, each


def _random(config: Any, dtype: torch.dtype, device: str) -> Decoder:
    with torch.device("meta"):
        model = loading.auto_class(config).from_config(config, dtype=dtype)
    model = model.to_empty(device=device).eval().requires_grad_(False)
    model.tie_weights()  # each had become a tensor of its own
    generator = torch.Generator(device).manual_seed(0)
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point():
            tensor.uniform_(-0.02, 0.02, generator=generator)
        else:
            tensor.zero_()
    return Decoder(model)


def _time(function: Callable[[], Any], seconds: float, device: str) -> float:
    """Return the mean seconds of a call, after one that warms up; at least one call is timed."""

    def run() -> float:
        function()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    run()
    began, now, calls = time.perf_counter(), 0.0, 0
    while not calls or now - began < seconds:
        now, calls = run(), calls + 1
    return (now - began) / calls
