"""What each method costs to fit and to apply, and which form its shift has: a vector, an affine map, or neither.

Times are of the processor, so that other work on the machine counts less. Steering costs what one method's shift of the
rows of one layer costs, over a plain forward pass of the same tokens.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lightning_steer.methods.base import SteeringMethod
from lightning_steer.resources import resource_path
from lightning_steer.studies.arena.entrants import Entrant
from lightning_steer.studies.arena.language import LanguageCell, LanguageScale
from lightning_steer.vectors.constant import constant

TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
"""For a look only."""
LLAMA = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 2048}
"""As in ``benchmarks``: 125 million parameters with a vocabulary of 32,000."""
TOKENS, SHIFTS = 64, 20
VECTOR, AFFINE, CURVED = "vector", "affine", "curved"
MODEL, TASK, LAYER, SEED = "base", "truthful", 3, 0
"""The cell whose fits are timed."""


def form(method: SteeringMethod) -> str:
    """Return whether a fitted method adds the same vector to every row, maps rows affinely, or neither."""
    strength = method.default_strengths[len(method.default_strengths) // 2]
    try:
        constant(method, strength)
        return VECTOR
    except ValueError:
        pass
    first, second = (torch.randn(64, method.width, generator=torch.Generator().manual_seed(i)) for i in range(2))
    with torch.no_grad():
        ends = [method.shift(h, strength).expand_as(h) for h in (first, second, (first + 3 * second) / 4)]
    mixed = (ends[0] + 3 * ends[1]) / 4
    size = max(float(end.abs().max()) for end in ends)
    return AFFINE if torch.allclose(mixed, ends[2], rtol=0, atol=1e-4 * max(size, 1e-12)) else CURVED


def of_any_weights(entrant: Entrant, width: int) -> SteeringMethod:
    """Return the method with random weights: how long a shift takes does not depend on them."""
    method = entrant.make(width)
    generator = torch.Generator().manual_seed(0)
    for tensor in (*method.buffers(), *method.parameters()):
        tensor.data = torch.randn(tensor.shape, generator=generator) / width
    method.fitted = True
    return method.requires_grad_(False)


def seconds(function: Callable[[], Any], times: int = 1) -> float:
    """Return processor seconds of one call, the mean over a few."""
    start = time.process_time()
    for _ in range(times):
        function()
    return (time.process_time() - start) / times


@torch.no_grad()
def steering(listed: Sequence[Entrant], repeats: int, llama: dict[str, int]) -> dict[str, list[float]]:
    """Return ``{name: [repeats]}`` a shift's time over that of a plain forward pass, by turns."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=32000, num_key_value_heads=None, **llama)
    model = AutoModelForCausalLM.from_config(config).eval()
    ids, h = torch.randint(0, 5000, (1, TOKENS)), torch.randn(1, TOKENS, llama["hidden_size"])
    made = {entrant.name: of_any_weights(entrant, llama["hidden_size"]) for entrant in listed}
    times: dict[str, list[float]] = {name: [] for name in made}
    model(ids, use_cache=False)
    for _ in range(repeats):
        plain = seconds(lambda: model(ids, use_cache=False))
        for name, method in made.items():
            times[name].append(seconds(lambda method=method: method(h, 0.5), SHIFTS) / plain)
    return times


def run(listed: Sequence[Entrant], repeats: int, scale: LanguageScale) -> dict[str, Any]:
    """Return fit time, steering time and form of every method."""
    single_layer = scale._replace(layers=(LAYER,))
    folder = Path(resource_path(f"checkpoints/pocket/{MODEL}"))
    cells = {
        part: LanguageCell(folder, TASK, SEED, single_layer, part) for part in dict.fromkeys(e.part for e in listed)
    }
    fits: dict[str, list[float]] = {}
    forms: dict[str, str] = {}
    for entrant in listed:
        cell = cells[entrant.part]
        for _ in range(min(repeats, 3)):
            cell.columns.clear()  # reading counts
            fits.setdefault(entrant.name, []).append(seconds(lambda cell=cell, entrant=entrant: cell.fitted(entrant)))
        (method,) = cell.fitted(entrant).values()
        forms[entrant.name] = form(method)
    shifts = steering(listed, repeats, TINY if scale.pairs < LanguageScale().pairs else LLAMA)
    return {
        "fit": {name: statistics.median(values) for name, values in fits.items()},
        "steer": {name: [1 + statistics.median(v), 1 + min(v), 1 + max(v)] for name, v in shifts.items()},
        "form": forms,
    }
