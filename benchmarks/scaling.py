"""How the cost of scoring steered questions grows with rows, tokens, layers, width, strengths and options.

A random small Llama, steered at one layer; one thing is varied at a time, at four sizes or more, each twice the one
before. The exponent of a power law through the median times is printed with the smallest and largest exponent between
neighbouring sizes: 1 is proportional, 0 is free. No bounds; strengths and options are below 1 where they share work.

    OMP_NUM_THREADS=2 python benchmarks/scaling.py        # two minutes
"""

import json
import statistics
from collections.abc import Callable

import numpy as np
import torch
from side_by_side import DEVICE, language_model, seconds, sentence
from tqdm.auto import tqdm

from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice

REPEATS = 5


def llama(layers: int = 6, width: int = 256) -> LLM:
    """Steered in the middle."""
    return language_model(
        layers // 2,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        intermediate_size=width * 11 // 4,
    )


def work(llm: LLM, rows: int = 16, tokens: int = 64, strengths: int = 1, options: int = 2) -> Callable[[], object]:
    """Score questions at some strengths."""
    questions = [
        MultipleChoice(sentence(i, tokens, tokens), tuple(f" w{j}" for j in range(options))) for i in range(rows)
    ]
    vector = torch.randn(llm.width(""), generator=torch.Generator().manual_seed(0)).to(DEVICE, llm.model.dtype)
    strength = torch.linspace(-1, 1, strengths, device=DEVICE, dtype=llm.model.dtype).view(-1, 1, 1, 1)
    return lambda: llm.scores(questions, {llm.sites[0]: lambda h: h + strength * vector}, strengths)


def main() -> None:
    """Measure and print."""
    small = llama()
    varied = {
        "rows": {n: work(small, rows=n) for n in (16, 32, 64, 128)},
        "tokens of a prompt": {n: work(small, tokens=n) for n in (32, 64, 128, 256)},
        "layers": {n: work(llama(layers=n)) for n in (4, 8, 16, 32)},
        "width": {n: work(llama(width=n)) for n in (128, 256, 512, 1024)},
        "strengths": {n: work(small, strengths=n) for n in (1, 2, 4, 8, 16)},
        "options": {n: work(small, options=n) for n in (2, 4, 8, 16)},
    }
    with torch.inference_mode():
        for name, sizes in tqdm(varied.items(), desc="scaling", leave=False):
            for once in sizes.values():
                once()
            turns = [[seconds(once) for once in sizes.values()] for _ in range(REPEATS)]
            times = [statistics.median(column) for column in zip(*turns, strict=True)]
            size, cost = np.log2(list(sizes)), np.log2(times)
            exponent, steps = np.polyfit(size, cost, 1)[0], np.diff(cost) / np.diff(size)
            line = {"exponent": exponent, "low": steps.min(), "high": steps.max(), "n": REPEATS}
            told = ", ".join(f"{n}: {1e3 * t:.0f} ms" for n, t in zip(sizes, times, strict=True))
            rounded = {key: float(f"{value:.3g}") for key, value in line.items()}
            print(json.dumps({"benchmark": f"scaling, {name}", **rounded, "told": told, "device": DEVICE}))
            print(f"cost with {name}: exponent {exponent:.2f} ({steps.min():.2f} to {steps.max():.2f}); {told}")


if __name__ == "__main__":
    main()
