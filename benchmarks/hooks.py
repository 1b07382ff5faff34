"""Cost of an additive hook on every layer.

1. Forward passes of a random 125M Llama, steered at all layers, over plain ones. Bound: 1.02.
2. Microseconds for each hook and call, on a model so small that nothing else counts. Bound: 15.

    OMP_NUM_THREADS=2 python benchmarks/hooks.py        # two minutes
"""

import statistics

import torch
from side_by_side import DEVICE, Timing, by_turns, language_model, say, seconds, size

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
        timing = by_turns(steered, plain, 75, "hooks")
    say("hooks", timing, "<= 1.02", f"an additive hook on each layer, {size(llm)}, 4 x 64 tokens, over a plain forward")

    llm = language_model(-1, **TINY)
    ids, edits = ids[:1, :1], additive(llm)
    with torch.inference_mode():  # single calls by turns: a pause of the machine spoils a few, not a whole run
        blocks = [by_turns(steered, plain, 200, f"a hook, block {block} of 10") for block in range(1, 11)]
    each = 1e6 / TINY["num_hidden_layers"]
    costs = sorted(each * (block.first - block.second) for block in blocks)
    first, second = (statistics.median(column) for column in ([b.first for b in blocks], [b.second for b in blocks]))
    cost = Timing(statistics.median(costs), costs[0], costs[-1], first, second, len(blocks))
    told = "microseconds for each hook and call; medians of blocks of 200 calls each way"
    say("microseconds a hook", cost, "<= 15", told)


def additive(llm):
    """A vector added to the output of every block."""
    vector = torch.randn(llm.width(""), device=DEVICE, dtype=llm.model.dtype)
    return {f"{llm.blocks}.{i}": lambda h: h + vector for i in range(llm.model.config.num_hidden_layers)}


if __name__ == "__main__":
    main()
