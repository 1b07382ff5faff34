"""Cost of an additive hook on every layer.

1. Forward passes of a random 125M Llama, steered at all layers, over plain ones. Bound: 1.02.
2. Microseconds for each hook and call, on a model so small that nothing else counts. Bound: 15.

    OMP_NUM_THREADS=2 python benchmarks/hooks.py        # a minute
"""

import torch
from side_by_side import DEVICE, by_turns, language_model, say, seconds, size

TINY = {"hidden_size": 32, "num_hidden_layers": 12, "num_attention_heads": 4, "intermediate_size": 32}


def main() -> None:
    """Measure and print."""
    llm = language_model(-1)
    ids = torch.randint(0, 5000, (4, 64), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    edits = additive(llm)

    def plain() -> float:
        return seconds(lambda: llm.model(ids, use_cache=False))

    def steered() -> float:
        with llm.steered(edits):
            return seconds(lambda: llm.model(ids, use_cache=False))

    with torch.inference_mode():
        timing = by_turns(steered, plain, 25, "hooks")
    say("hooks", timing, "<= 1.02", f"an additive hook on each layer, {size(llm)}, 4 x 64 tokens, over a plain forward")

    llm = language_model(-1, **TINY)
    ids, edits, calls = ids[:1, :1], additive(llm), 50

    def many() -> None:
        for _ in range(calls):
            llm.model(ids, use_cache=False)

    def small_steered() -> float:
        with llm.steered(edits):
            return seconds(many)

    with torch.inference_mode():
        timing = by_turns(small_steered, lambda: seconds(many), 51, "a hook")
    each = 1e6 / calls / TINY["num_hidden_layers"]
    cost = timing._replace(ratio=each * (timing.first - timing.second))
    cost = cost._replace(low=each * timing.second * (timing.low - 1), high=each * timing.second * (timing.high - 1))
    say("microseconds a hook", cost, "<= 15", "microseconds for each hook and call")


def additive(llm):
    """A vector added to the output of every block."""
    vector = torch.randn(llm.width(""), device=DEVICE, dtype=llm.model.dtype)
    return {f"{llm.blocks}.{i}": lambda h: h + vector for i in range(llm.model.config.num_hidden_layers)}


if __name__ == "__main__":
    main()
