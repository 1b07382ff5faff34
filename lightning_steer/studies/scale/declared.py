"""What is repeated at both sizes, on which draws, and when a finding carries over: declared before any measurement."""

from lightning_steer.statistics.claims import Result
from lightning_steer.studies.arena import declared as arena
from lightning_steer.studies.declaration import Contrast, Declaration, Question
from lightning_steer.studies.mera.crossed.declaration import RIDGE, SIGMA, Other, Side, W
from lightning_steer.studies.mera.settings import TASKS

SMALL, LARGE = "0.6M", "3M"
LAYERS = {SMALL: 5, LARGE: 7}
GAP_LIMIT = 0.02
"""Nats a token above the exact entropy: the bar of the pocket models' cards."""
DOCUMENTS, DOCUMENT_SEED = 2000, 5
PROMPTS = 400
"""Of each task."""
MERA_DRAWS = (30, 31)
FIDELITY_SEED = 3
RANDOM_DIRECTIONS = 20
NARROW_SEED = 1
ARENA_SEED, REFERENCE_SEED = 4, 5


def depth(layer: int, layers: int) -> int:
    """Return the layer after which the same share of the blocks is done, of ``layers`` instead of five."""
    return round((layer + 1) / LAYERS[SMALL] * layers) - 1


RULE = (
    "A finding held if its claim is shown at both sizes (Holm over the question's contrasts, within a size). It did "
    f"not hold if it is shown at {SMALL} and not at {LARGE}, where an effect as far from the limit as that at {SMALL} "
    "would have been seen in 80 % of repeats; if it would not have been seen, it is not known. If it is not shown at "
    f"{SMALL} either, this smaller design repeats nothing, and nothing is said about size."
)
_CONTROL = "none planted; the small model, where each finding was first seen, is measured with the same rows"
KNOWLEDGE = Question(
    "Knowledge",
    f"How near is the model to its language? {DOCUMENTS} documents of its own mixture; {PROMPTS} prompts of each of "
    f"{len(TASKS)} tasks; the 24 target terms that training does not have, in frames that it does not have.",
    tuple(
        contrast
        for model in ("base", "tuned")
        for contrast in (
            Contrast(f"loss, {model}", "loss less exact entropy, nats a token, mean over documents", "below", GAP_LIMIT,
                     primary=model == "base"),
            Contrast(f"log-odds, {model}", "size of the error of the log-odds of a trait against its opposite, less "
                     "half of that of a table that knows no groups", "below"),
            Contrast(f"task errors, {model}", "size of the error of P(wrong label), less half of that of a task's mean",
                     "below"),
        )
    ),
    "documents, terms and prompts of the pocket language, for these weights",
    _CONTROL,
)  # fmt: skip
GAIN = Side("w", path="any", rule="gain")
PULL, BALANCED = "10 % pull", "balanced"
COMPARISONS: dict[str, tuple[Side, Other, str]] = {
    "ridge 100 beats R2": (RIDGE, W, "spi"),
    "any probe by gain beats R2": (GAIN, W, "spi"),
    "Sigma w beats w": (SIGMA, W, "spi"),
    "worse prediction, more repair": (Side("w", path="ridge"), "nothing", "rank"),
    "Sigma w beats a random direction": (SIGMA, "mean of 20 random", "spi"),
}
"""Sides and figure of the contrasts with a tenth of pull labels."""
PRIOR = "less repair at equal labels"
MERA = Question(
    "MERA",
    "SPI deployed, a tenth of the rows with the pull label, last token of the last block, certified at delta .01 on "
    "250 prompts.",
    (
        *(
            Contrast(name, f"{figure} of {left} less that of {right}", "below" if figure == "rank" else "above",
                     primary=i == 0)
            for i, (name, (left, right, figure)) in enumerate(COMPARISONS.items())
        ),
        Contrast(PRIOR, f"spi of {GAIN}, {PULL} less {BALANCED}", "above"),
    ),
    f"pairs of a model (base, tuned) and a task, of these weights; the mean over {len(MERA_DRAWS)} draws of prompts",
    _CONTROL,
)  # fmt: skip
_AT = "strength 1, middle layer, own vector"
FIDELITY = Question(
    "Fidelity",
    f"What the vector away from a stereotype moves, at {_AT} unless another is named; nats a token.",
    (
        *(
            Contrast(f"unrelated gains on stereotype, {model}, {kind}s", "stereotype's change less the unrelated one's",
                     "below", primary=(model, kind) == ("tuned", "town"))
            for model in ("tuned", "base") for kind in ("town", "trade")
        ),
        *(
            Contrast(f"beats random directions, {model}", f"margin's change less the mean of {RANDOM_DIRECTIONS} "
                     "random directions of equal length", "above")
            for model in ("base", "tuned")
        ),
        Contrast("base moves further than tuned", "margin's change, base less tuned", "above"),
        Contrast("narrow: base's vector moves more", "margin's change in the narrow model, base's vector less its own",
                 "above"),
        Contrast("narrow: less response", "margin's change by base's vector, in base less in narrow", "above"),
    ),
    "target terms of the pocket language (24 of a bias type judge), for these weights and one narrow training",
    _CONTROL,
)  # fmt: skip
ARENA_PAIRS = {**arena.PAIRS, "LoReFT above the mean difference": ("loreft", "mean_difference")}
ARENA = Question(
    "Arena",
    "Held-out effect at equal damage, standard deviations of the margin, base model, ten tasks, two layers.",
    tuple(
        Contrast(name, f"{a} less {b}", "above", primary=i == 0) for i, (name, (a, b)) in enumerate(ARENA_PAIRS.items())
    ),
    arena.EFFECT.unit,
    _CONTROL,
)  # fmt: skip
QUESTIONS = (KNOWLEDGE, MERA, FIDELITY, ARENA)
DECLARATION = Declaration(
    "scale",
    QUESTIONS,
    (
        f"at {SMALL}: all of these findings, on other draws (docs/mera.md, docs/fidelity.md, docs/which-method.md); "
        "the claims' directions come from there",
        f"at {LARGE}: nothing. One learning rate, 1.5e-3, one seed, 0, and the steps of the small model (3,000, "
        "tuned 2,000, narrow 700; rates .6 times the small models') were fixed before training; no other run was made, "
        "but 40 steps for the speed",
        "layers were fixed by rule: the same share of blocks done, so 1, 2, 3 of five are "
        f"{', '.join(str(depth(layer, LAYERS[LARGE])) for layer in (1, 2, 3))} of seven",
    ),
    f"MERA draws {MERA_DRAWS[0]} and {MERA_DRAWS[1]}; fidelity examples of seed {FIDELITY_SEED}, narrow training of "
    f"seed {NARROW_SEED}; arena seed {ARENA_SEED} (seed {REFERENCE_SEED} at {SMALL} only says how far ranks repeat in "
    f"one model); documents of seed {DOCUMENT_SEED}. {RULE}",
)


def verdict(small: Result, large: Result, shown: tuple[bool, bool], limit: float) -> str:
    """Return whether a finding held, by :data:`RULE`; ``shown`` is of the small and the large model."""
    if not shown[0]:
        return "not repeated"
    if shown[1]:
        return "held"
    return "did not hold" if large.detectable <= abs(small.estimate.value - limit) else "not known"
