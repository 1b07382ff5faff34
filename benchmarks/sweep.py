"""Nine strengths in one pass against nine passes, steered two thirds up.

Questions with two options are scored by a random 125M Llama: all strengths as rows of one batch, the layers up to the
steered one computed once; and the same function called once for each strength. The scores must be equal. With L layers
the arithmetic allows 9 L / (2/3 L + 9 L / 3) = 2.45. Bound: 2.2.

    OMP_NUM_THREADS=2 python benchmarks/sweep.py        # two minutes
"""

import torch
from side_by_side import DEVICE, LLAMA, by_turns, language_model, say, seconds, sentence, size

from lightning_steer.lm.tokens import MultipleChoice

STRENGTHS = torch.linspace(-2, 2, 9, device=DEVICE)


def main() -> None:
    """Measure and print."""
    llm = language_model(2 * LLAMA["num_hidden_layers"] // 3 - 1)
    site = llm.sites[0]
    questions = [MultipleChoice(sentence(i, 15, 40), (f" w{i}", f" w{i + 7} w{i}")) for i in range(6)]
    vector = torch.randn(llm.width(""), generator=torch.Generator().manual_seed(0)).to(DEVICE, llm.model.dtype)
    strength = STRENGTHS.to(llm.model.dtype)
    scores = {}

    def together() -> None:
        edits = {site: lambda h: h + strength.view(-1, 1, 1, 1) * vector}
        scores["together"] = llm.scores(questions, edits, len(strength))

    def one_by_one() -> None:
        passes = [llm.scores(questions, {site: lambda h, s=s: h + s * vector})[0] for s in strength]
        scores["one by one"] = torch.stack(passes)

    with torch.inference_mode():
        timing = by_turns(lambda: seconds(one_by_one), lambda: seconds(together), 7, "sweep")
    difference = float((scores["together"] - scores["one by one"]).abs().max())
    moved = float((scores["together"] - scores["together"][4]).abs().max())
    assert difference < (1e-4 if DEVICE == "cpu" else 0.5) < moved, (difference, moved)
    say(
        "sweep",
        timing,
        ">= 2.2",
        f"9 passes over 9 strengths in one, layer {llm.layers[0]} of a {size(llm)}, scores equal to {difference:.0e}",
        difference=difference,
    )


if __name__ == "__main__":
    main()
