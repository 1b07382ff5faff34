"""The search over all layers and nine strengths, against a ``fit`` for each layer; and what coarse to fine saves.

Twelve layers of a random 134M Llama, 12 pairs and 8 texts. First the passes through blocks, as hooks see them, over
those that must be: layers below a site once, those above once for each strength. Bound: 1.2. Then passes from coarse to
fine over those of the whole grid. Bound: 1/3. Then the time of ``fit`` with the same strengths and texts, once at two
layers and taken for twelve, over the time of the whole grid. Last the passes and the time of both searches on small
Llamas of 4, 8, 16 and 32 layers, with the exponent of a power law in the number of layers.

    OMP_NUM_THREADS=1 python benchmarks/search.py       # five minutes
"""

import json
import statistics
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from side_by_side import DEVICE, LLAMA, WORDS, Timing, compared, language_model, say, seconds, sentence, size

import lightning_steer as ls
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.behaviours.pairs import Pairs
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods import MeanDifference
from lightning_steer.selection.coarse import CoarseToFine
from lightning_steer.selection.grid import Grid, within_budget
from lightning_steer.workflows.fit import backbone
from lightning_steer.workflows.search import Search

STRENGTHS = list(MeanDifference.default_strengths)
PAIRS = [ls.ContrastPair(sentence(i, 8, 8), f"{WORDS[i]} {WORDS[i + 50]}", WORDS[i + 100]) for i in range(12)]
TEXTS = [sentence(100 + i, 12, 12) for i in range(8)]
FITTED = 2, 9
REPEATS = 3


def search_of(llm: LLM) -> Search:
    """Fit a mean difference at every layer."""
    every = backbone(llm, list(range(llm.decoder.depth)))
    return Search(every, BehaviourDataModule(Pairs(PAIRS), None, False, 0.4, 0.3), MeanDifference, TEXTS[::2])


def coarse(search: Search) -> Grid:
    """Search from coarse to fine; a random model is damaged little, so the budget is no bound here."""
    grid = Grid.untried(search.llm.layers, STRENGTHS, search.rows)
    finder = CoarseToFine(
        grid,
        len(STRENGTHS),
        lambda layer, places: search.cells(layer, [STRENGTHS[place] for place in places]),
        search.token_passes,
    )
    finder.start(lambda grid: next(iter(within_budget(grid, 100.0)), None))
    return finder.grid


@contextmanager
def passes(llm: LLM) -> Iterator[Counter[str]]:
    """Count the tokens that go through blocks."""
    counted: Counter[str] = Counter()
    names = [f"{llm.decoder.blocks}.{layer}" for layer in range(llm.decoder.depth)]
    handles = [
        llm.model.get_submodule(name).register_forward_hook(
            lambda _block, _args, h: counted.update(n=(h[0] if isinstance(h, tuple) else h).shape[:-1].numel())
        )
        for name in names
    ]
    try:
        yield counted
    finally:
        for handle in handles:
            handle.remove()


def counts(search: Search) -> tuple[int, int, int]:
    """Passes that must be, those of the whole grid and those from coarse to fine."""
    depth, strengths = search.llm.decoder.depth, len(STRENGTHS)
    scored, read = search._tokens
    least = sum(layer + 1 + strengths * (depth - layer - 1) for layer in range(depth)) * (scored + read)
    operations = []
    for work in (lambda: search.grid(STRENGTHS), lambda: coarse(search)):
        with passes(search.llm) as counted:
            work()
        operations.append(counted["n"])
    return least, operations[0], operations[1]


def ratio(value: float) -> Timing:
    """A ratio that is counted, not timed."""
    return Timing(value, value, value, value, 1.0, 1)


def growth(name: str, cost: dict[int, float], unit: str, n: int) -> None:
    """Print how a cost grows with the number of layers."""
    layers, y = np.log2(list(cost)), np.log2(list(cost.values()))
    exponent, steps = np.polyfit(layers, y, 1)[0], np.diff(y) / np.diff(layers)
    told = ", ".join(f"{layers}: {value:.3g} {unit}" for layers, value in cost.items())
    line = {"exponent": exponent, "low": steps.min(), "high": steps.max(), "n": n}
    rounded = {key: float(f"{value:.3g}") for key, value in line.items()}
    print(json.dumps({"benchmark": f"scaling, {name}", **rounded, "told": told, "device": DEVICE}))
    print(f"cost of {name}: exponent {exponent:.2f} ({steps.min():.2f} to {steps.max():.2f}); {told}")


def with_layers() -> None:
    """Measure both searches at four depths."""
    works: dict[str, dict[int, float]] = {name: {} for name in ("grid passes", "coarse passes", "grid", "coarse")}
    for depth in (4, 8, 16, 32):
        small = language_model(
            -1, hidden_size=128, num_hidden_layers=depth, num_attention_heads=4, intermediate_size=352, vocab_size=6000
        )
        search = search_of(small)
        _, works["grid passes"][depth], works["coarse passes"][depth] = (counted / 1e6 for counted in counts(search))
        for name, work in (("grid", partial(search.grid, STRENGTHS)), ("coarse", partial(coarse, search))):
            works[name][depth] = statistics.median(seconds(work) for _ in range(REPEATS))
    for name, unit in (("grid passes", "M tokens x blocks"), ("coarse passes", "M tokens x blocks")):
        growth(f"layers, search, {name}", works[name], unit, 1)
    for name in ("grid", "coarse"):
        growth(f"layers, search, {name}", works[name], "s", REPEATS)


def main() -> None:
    """Measure and print."""
    with_layers()
    llm = language_model(-1, **LLAMA)
    search = search_of(llm)
    least, whole, part = counts(search)
    cells = f"{llm.decoder.depth} layers x {len(STRENGTHS)} strengths, {size(llm)}"
    say("search, passes", ratio(whole / least), "<= 1.2", f"passes of the whole grid over those needed, {cells}")
    say("search, coarse", ratio(part / whole), "<= 0.333", f"passes from coarse to fine over the whole grid's, {cells}")

    def grid() -> float:
        return seconds(lambda: search_of(llm).grid(STRENGTHS))

    def fits() -> float:
        times = [
            seconds(lambda layer=layer: ls.fit(llm, PAIRS, layer, MeanDifference, STRENGTHS, TEXTS[::2]))
            for layer in FITTED
        ]
        return sum(times) * llm.decoder.depth / len(times)

    told = f"a fit for each layer ({len(FITTED)} run, taken for all) over the search of the whole grid, {cells}"
    say("search, fits", compared([(fits(), grid())]), "", told)


if __name__ == "__main__":
    main()
