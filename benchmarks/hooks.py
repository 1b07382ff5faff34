"""Cost of an additive hook on every layer.

1. Forward passes of a random 125M Llama, steered at all layers, over plain ones. Bound: 1.02.
2. Microseconds for each hook and call, on a model so small that nothing else counts. Bound: 15.

    OMP_NUM_THREADS=2 python benchmarks/hooks.py        # two minutes
"""

import statistics

import torch
from side_by_side import DEVICE, Timing, by_turns, compared, language_model, say, seconds, size, turns

TINY = {"hidden_size": 32, "num_hidden_layers": 12, "num_attention_heads": 4, "intermediate_size": 32}


def main() -> None:
    """Measure and print."""
    llm = language_model(-1)
    ids = torch.randint(0, 5000, (1, 64), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    edits = additive(llm)

    def plain() -> float:
        return seconds(lambda: llm.model(ids, use_cache=False))

    def steered() -> float:
        with llm.steered(edits):
            return seconds(lambda: llm.model(ids, use_cache=False))

    with torch.inference_mode():
        timing = by_turns(steered, plain, 400, "hooks")
    say("hooks", timing, "<= 1.02", f"an additive hook on each layer, {size(llm)}, 64 tokens, over a plain forward")

    llm = language_model(-1, **TINY)
    ids, edits = ids[:, :1], additive(llm)
    # single calls by turns, and the difference of neighbours: the machine's speed changes more than a hook costs
    with torch.inference_mode():
        pairs = turns(steered, plain, 2000, "a hook")
    each = 1e6 / TINY["num_hidden_layers"]
    costs = [statistics.median(each * (a - b) for a, b in pairs[i : i + 200]) for i in range(0, len(pairs), 200)]
    whole = compared(pairs)
    cost = Timing(
        each * statistics.median(a - b for a, b in pairs), min(costs), max(costs), whole.first, whole.second, len(pairs)
    )
    told = "microseconds for each hook and call; median difference of neighbouring calls, and of each 200 of them"
    say("microseconds a hook", cost, "<= 15", told)


def additive(llm):
    """A vector added to the output of every block."""
    vector = torch.randn(llm.width(""), device=DEVICE, dtype=llm.model.dtype)
    return {f"{llm.blocks}.{i}": lambda h: h + vector for i in range(llm.model.config.num_hidden_layers)}


if __name__ == "__main__":
    main()
