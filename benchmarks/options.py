"""Four options that share a prompt of 200 tokens, against four full passes.

A random 125M Llama scores options of one to four tokens: side by side in one row, where an option sees the prompt and
itself; and an option a row, in the same batches. The scores must be equal. The arithmetic allows about 3.8.
Bound: 3. Then what windows cost: a Mistral of the same size with a window of 64 tokens against one without, both with
options side by side. Both have a prepared mask, so that only making it differs.

    OMP_NUM_THREADS=2 python benchmarks/options.py      # four minutes
"""

import torch
from side_by_side import DEVICE, LLAMA, by_turns, language_model, say, seconds, sentence, size

from lightning_steer.lm.tokens import MultipleChoice

MISTRAL = {"model_type": "mistral", "num_key_value_heads": LLAMA["num_attention_heads"]}


def main() -> None:
    """Measure and print."""
    llm = language_model(-1, 2048)
    questions = [
        MultipleChoice(sentence(i, 200, 200), tuple(f" {sentence(100 * i + j, j, j)}" for j in range(1, 5)))
        for i in range(3)
    ]
    assert llm.packs
    scores = {}

    def shared() -> None:
        llm.packs = True
        scores["shared"] = llm.scores(questions)

    def full() -> None:
        llm.packs = False
        scores["full"] = llm.scores(questions)

    with torch.inference_mode():
        timing = by_turns(lambda: seconds(full), lambda: seconds(shared), 7, "options")
    difference = float((scores["shared"] - scores["full"]).abs().max())
    assert difference < (1e-4 if DEVICE == "cpu" else 0.5), difference
    say(
        "options",
        timing,
        ">= 3",
        f"4 full passes over one shared prompt of 200 tokens, {size(llm)}, scores equal to {difference:.0e}",
        difference=difference,
    )
    models = [language_model(-1, 2048, **LLAMA, **MISTRAL, sliding_window=size) for size in (64, None)]
    assert all(model.packs for model in models)
    work = [lambda model=model: model.scores(questions) for model in models]
    with torch.inference_mode():
        timing = by_turns(lambda: seconds(work[0]), lambda: seconds(work[1]), 7, "windows")
    say(
        "options, windows",
        timing,
        "<= 1.1",
        "4 options over one shared prompt of 200 tokens, a window of 64 tokens over full attention",
    )


if __name__ == "__main__":
    main()
