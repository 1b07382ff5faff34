"""Declare a study's questions, contrasts and positive controls before its results are seen; tabulate the results.

:func:`lightning_steer.studies.opening.open_once` opens the draws that are kept for the verdict, and logs it.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from lightning_steer.markdown import table
from lightning_steer.statistics.claims import ASSUMED, Result
from lightning_steer.statistics.estimate import LEVEL, NO_INTERVAL
from lightning_steer.statistics.multiplicity import holm

Direction = Literal["above", "below", "differs from", "within"]
"""The claim: above, below or different from ``limit``; or within ``limit`` of 0 on either side (equivalence)."""


@dataclass(frozen=True)
class Contrast:
    """One comparison, with the direction that is claimed."""

    name: str
    """Unique within its question; results are looked up by it."""
    estimand: str
    """What is estimated, in words: which rows, which model, which settings."""
    direction: Direction = "above"
    limit: float = 0.0
    primary: bool = False


@dataclass(frozen=True)
class Question:
    """A question and all contrasts that answer it; Holm's correction runs over these."""

    name: str
    text: str
    contrasts: tuple[Contrast, ...]
    unit: str
    """The units that intervals generalise to (terms, draws of prompts, seeds, kinds of world)."""
    positive_control: str
    """A case with a planted pattern, and how often the design finds it."""

    def __post_init__(self) -> None:
        names = [contrast.name for contrast in self.contrasts]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"the question '{self.name}' needs contrasts of different names, not {names}")


@dataclass(frozen=True)
class Declaration:
    """All that a study states before its verdict draws are opened; everything else it reports is exploratory."""

    study: str
    questions: tuple[Question, ...]
    tried_before: tuple[str, ...]
    """What was examined before this declaration, and on which draws."""
    verdict_draws: str
    """Draws that are reserved for the verdict: models, seeds, terms, rows."""

    def digest(self) -> str:
        """Return a 16-digit fingerprint of this declaration."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def verdicts(question: Question, results: Mapping[str, Result]) -> list[tuple[Contrast, Result, float, bool]]:
    """Return each contrast with its result, its p-value after Holm, and whether the claim is shown.

    Raises:
        ValueError: results and declared contrasts differ; a p-value is not in [0, 1]; or a claim is not
            shown and its smallest detectable effect is not given.
    """
    names = [contrast.name for contrast in question.contrasts]
    if set(names) != set(results):
        raise ValueError(f"results of '{question.name}' are for {sorted(results)}, but declared are {sorted(names)}")
    adjusted = holm([results[name].p for name in names])
    shown = [bool(p <= 1 - LEVEL) for p in adjusted]
    for name, is_shown in zip(names, shown, strict=True):
        if not is_shown and not math.isfinite(results[name].detectable):
            raise ValueError(f"'{name}' is not shown: give the smallest effect that the design could have seen")
    return [(c, results[c.name], float(p), is_shown)
            for c, p, is_shown in zip(question.contrasts, adjusted, shown, strict=True)]  # fmt: skip


def declared_text(declaration: Declaration) -> str:
    """Return the declaration as Markdown."""
    lines = [f"## Declared before the verdict draws were opened (digest {declaration.digest()})\n",
             f"Verdict draws: {declaration.verdict_draws}\n", "Tried before:\n",
             *(f"- {line}" for line in declaration.tried_before or ("nothing",))]  # fmt: skip
    for question in declaration.questions:
        lines.append(f"\n**{question.name}.** {question.text} Speaks about other {question.unit}. "
                     f"Positive control: {question.positive_control}\n")  # fmt: skip
        rows = [(f"{c.name}{' (primary)' if c.primary else ''}", c.estimand, claim(c)) for c in question.contrasts]
        lines += table(("contrast", "what is estimated", "claim"), rows)
    return "\n".join(lines) + "\n"


def claim(contrast: Contrast) -> str:
    """Return the claim about the estimand, in words."""
    limit = f"{contrast.limit:g}"
    return f"between -{limit} and {limit}" if contrast.direction == "within" else f"{contrast.direction} {limit}"


def verdict_text(question: Question, results: Mapping[str, Result]) -> str:
    """Return a Markdown table of a question's declared contrasts and their results; its head names the question."""
    head, rows = (question.name, "claim", "estimate", "p", "p, Holm", "shown", "could have seen"), []
    for contrast, (estimate, p, detectable), adjusted, shown in verdicts(question, results):
        smallest_effect = f"{detectable:.3g}" if math.isfinite(detectable) else "-"
        cells = str(estimate), f"{p:.2g}", f"{adjusted:.2g}", "yes" if shown else "no", smallest_effect
        rows.append((contrast.name, claim(contrast), *cells))
    lines = [f"**{question.name}.** {question.text}\n", *table(head, rows)]
    ranges = any(result.estimate.how.startswith(NO_INTERVAL) for result in results.values())
    ends = "Round brackets: from the least to the largest unit, no interval." if ranges else "Intervals over these."
    return "\n".join(lines) + (
        f"\n\nUnits: {question.unit}. {ends} {ASSUMED.format(unit='them')} Could have seen: the smallest distance from "
        "the limit that this design would show in 80 % of repeats.\n"
    )
