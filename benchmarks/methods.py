"""Cost of every method's shift at one layer, against the plain forward of the benchmarks' model.

A random 134M Llama reads 64 tokens; every method, fitted to random rows, steers states of the same shape. Forward and
shifts alternate, in processor time. A line gives (forward + shift) / forward. Bound: 1.05; 1.15 where every token is
turned in a plane or goes through a classifier.

    OMP_NUM_THREADS=1 python benchmarks/methods.py        # a minute
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from side_by_side import DEVICE, Timing, language_model, say, size

from lightning_steer import methods
from lightning_steer.methods import Composed, Gated, MeanDifference, SteeringMethod
from lightning_steer.probes.sparse_autoencoder import begin, save_sparse_autoencoder
from lightning_steer.records import Activations

TOKENS, ROWS, REPEATS, CALLS = 64, 60, 7, 5
SLOWER = ("Angular", "KSteering")
"""A rotation of every token, and the gradient of a classifier."""


def activations(width: int) -> Activations:
    """Random rows of two classes."""
    generator = torch.Generator().manual_seed(0)
    value = torch.arange(2).repeat_interleave(ROWS)
    h = torch.randn(2 * ROWS, width, generator=generator) + value.unsqueeze(1)
    sensitivity = torch.randn(2 * ROWS, 2, width, generator=generator)
    return Activations(h, 1.0 - value, value.unsqueeze(1), True, 12, sensitivity)


def fitted(folder: str, width: int) -> dict[str, SteeringMethod]:
    """Every method, fitted; the autoencoder is random."""
    seen = activations(width)
    save_sparse_autoencoder(begin(seen.h, 4 * width, 0), folder)
    special: dict[str, Callable[[int], SteeringMethod]] = {
        "SAEMERA": partial(methods.SAEMERA, folder=folder),
        "Gated": partial(Gated, method=MeanDifference, eta=0.2, delta=0.2),
        "Composed": partial(Composed, methods=[MeanDifference, methods.Ablation]),
    }
    names = [name for name in methods.__all__ if name != "SteeringMethod"]
    return {name: special.get(name, getattr(methods, name))(width).fit(seen) for name in names}


def spent(work: Callable[[], Any], calls: int = 1) -> float:
    """Processor seconds of a call; on a GPU seconds."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter if DEVICE == "cuda" else time.process_time
    start = clock()
    for _ in range(calls):
        work()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return (clock() - start) / calls


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    llm = language_model(-1)
    ids = torch.randint(0, 5000, (1, TOKENS), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    h = torch.randn(1, TOKENS, llm.width(""), device=DEVICE, dtype=llm.model.dtype)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False):
        every = {name: method.to(DEVICE) for name, method in fitted(folder, llm.width("")).items()}
    works = {name: partial(method, h, 0.1) for name, method in every.items()}  # type: ignore[arg-type]
    for work in works.values():
        work()
    llm.model(ids, use_cache=False)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    forward = []
    for _ in range(REPEATS):
        forward.append(spent(lambda: llm.model(ids, use_cache=False)))
        for name, work in works.items():
            seconds[name].append(spent(work, CALLS))
    for name, shifts in seconds.items():
        ratios = sorted(1 + shift / plain for shift, plain in zip(shifts, forward, strict=True))
        median = [statistics.median(column) for column in (ratios, shifts, forward)]
        timing = Timing(median[0], ratios[0], ratios[-1], median[1], median[2], REPEATS)
        told = (
            f"{name}: forward and shift of {TOKENS} tokens over the forward of a {size(llm)}, {1e3 * median[1]:.2f} ms"
        )
        say("shift", timing, "<= 1.15" if name in SLOWER else "<= 1.05", told)


if __name__ == "__main__":
    main()
