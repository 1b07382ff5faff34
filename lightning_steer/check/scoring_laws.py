"""Laws on scored continuations and labels; the list of all laws stands in :mod:`.laws`."""

from collections.abc import Sequence

from lightning_steer.check.tool import PROMPTS, Bench, plain_score
from lightning_steer.lm.continuations import continuation
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice

STRANGE = (
    "\u201cIt is cold,\u201d she said: \u2018we go\u2019 and",
    "Caf\u00e9s in the na\u00efve cafe\u0301 and",
    "So it is \U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 and",
    "\u65e5\u672c\u8a9e, \ud55c\uad6d: the",
)
"""Characters that some tokenizers drop, normalise, or read as several tokens."""


def largest_difference(bench: Bench, llm: LLM, prompts: Sequence[str]) -> tuple[int, float]:
    """Return the number of continuations, and by how much their scores differ from single forward passes at most."""
    questions, worst = [MultipleChoice(text, bench.choices) for text in prompts], 0.0
    scores = bench.tool.score(llm, questions)
    for i, question in enumerate(questions):
        for j, option in enumerate(question.choices):
            prefix, rest = continuation(llm.tokenizer, question.prompt, option, True)
            worst = max(worst, abs(float(scores[i, j]) - plain_score(llm, prefix + rest, len(rest))))
    return scores.numel(), worst


def scoring_is_a_plain_forward(bench: Bench) -> tuple[bool, str]:
    """Scores of continuations are those of single forward passes."""
    count, worst = largest_difference(bench, bench.llm, PROMPTS)
    bound = 20 * bench.tolerance
    return worst <= bound, f"{count} continuations, largest difference {worst:.1e} nats"


def options_after_any_character(bench: Bench) -> tuple[bool, str]:
    """Quotes, accents, emoji and CJK before an option leave its score on its own tokens."""
    llm, worst = bench.llm, 0.0
    scores = bench.tool.score(llm, [MultipleChoice(text, bench.choices) for text in STRANGE])
    for i, text in enumerate(STRANGE):
        for j, option in enumerate(bench.choices):
            ids = list(llm.tokenizer(text + option)["input_ids"])
            while ids[-1] in (llm.tokenizer.eos_token_id, llm.tokenizer.sep_token_id):
                ids.pop()
            lengths = [n for n in range(1, len(ids)) if _letters(llm.tokenizer.decode(ids[-n:])) == _letters(option)]
            if not lengths:
                return False, f"no tokens of {text + option!r} read as {option!r}"
            worst = max(worst, abs(float(scores[i, j]) - plain_score(llm, ids, lengths[-1])))
    return worst <= 20 * bench.tolerance, f"{scores.numel()} continuations, largest difference {worst:.1e} nats"


def _letters(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalpha())


def labels_are_distinct(bench: Bench) -> tuple[bool, str]:
    """The labels' tokens differ, and none is the beginning of another."""
    label_tokens = [continuation(bench.llm.tokenizer, "Answer:", f" {label}", True)[1] for label in bench.labels]
    for i, a in enumerate(label_tokens):
        for j, b in enumerate(label_tokens):
            if i != j and b[: len(a)] == a:
                return False, f"{bench.labels[i]!r} and {bench.labels[j]!r} begin with the same tokens {a}"
    return True, ", ".join(f"{label} {tokens}" for label, tokens in zip(bench.labels, label_tokens, strict=True))
