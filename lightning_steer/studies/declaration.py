"""What a study declares before it looks: questions, contrasts, positive controls; and the tables of what they came to.

Draws kept for the verdict are opened by :func:`lightning_steer.studies.opening.open_once`, which logs it.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from lightning_steer.statistics.claims import ASSUMED, Result
from lightning_steer.statistics.estimate import LEVEL, NO_INTERVAL
from lightning_steer.statistics.multiplicity import holm

Direction = Literal["above", "below", "differs from", "within"]
"""Of the claim: above, below or different from ``limit``; or within ``limit`` of 0, either side (equivalence)."""


@dataclass(frozen=True)
class Contrast:
    """One comparison, with the direction that is claimed."""

    name: str
    """Unique within its question; results are given by it."""
    estimand: str
    """What is estimated, in words: of which rows, which model, at which settings."""
    direction: Direction = "above"
    limit: float = 0.0
    primary: bool = False


@dataclass(frozen=True)
class Question:
    """A question, and all the contrasts that answer it: Holm's correction is over these."""

    name: str
    text: str
    contrasts: tuple[Contrast, ...]
    unit: str
    """Unit of generality: what an interval speaks about others of (terms, draws of prompts, seeds, kinds of world)."""
    positive_control: str
    """Where the pattern is planted, and how often the design finds it there."""

    def __post_init__(self) -> None:
        names = [contrast.name for contrast in self.contrasts]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"the question '{self.name}' needs contrasts of different names, not {names}")


@dataclass(frozen=True)
class Declaration:
    """All that a study says before its verdict draws are opened; everything else that it reports is exploratory."""

    study: str
    questions: tuple[Question, ...]
    tried_before: tuple[str, ...]
    """What was looked at before this was declared, and on which draws."""
    verdict_draws: str
    """Draws kept for the verdict: models, seeds, terms, rows."""

    def digest(self) -> str:
        """Return 16 digits that tell this declaration from any other."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def verdicts(question: Question, results: Mapping[str, Result]) -> list[tuple[Contrast, Result, float, bool]]:
    """Return each contrast with its result, its p-value after Holm, and whether the claim is shown.

    Raises:
        ValueError: a declared contrast has no result or another has one; a p-value is no chance; or a claim is not
            shown and nobody says what could have been seen.
    """
    names = [contrast.name for contrast in question.contrasts]
    if set(names) != set(results):
        raise ValueError(f"results of '{question.name}' are for {sorted(results)}, but declared are {sorted(names)}")
    adjusted = holm([results[name].p for name in names])
    shown = [bool(p <= 1 - LEVEL) for p in adjusted]
    for name, seen in zip(names, shown, strict=True):
        if not seen and not math.isfinite(results[name].detectable):
            raise ValueError(f"'{name}' is not shown: give the smallest effect that the design could have seen")
    return [(c, results[c.name], float(p), seen)
            for c, p, seen in zip(question.contrasts, adjusted, shown, strict=True)]  # fmt: skip


def declared_text(declaration: Declaration) -> str:
    """Return the declaration as Markdown."""
    lines = [f"## Declared before the verdict draws were opened (digest {declaration.digest()})\n",
             f"Verdict draws: {declaration.verdict_draws}\n", "Tried before:\n",
             *(f"- {line}" for line in declaration.tried_before or ("nothing",))]  # fmt: skip
    for question in declaration.questions:
        lines.append(f"\n**{question.name}.** {question.text} Speaks about other {question.unit}. "
                     f"Positive control: {question.positive_control}\n")  # fmt: skip
        lines += ["| contrast | what is estimated | claim |", "|---|---|---|"]
        lines += [f"| {c.name}{' (primary)' if c.primary else ''} | {c.estimand} | {claim(c)} |"
                  for c in question.contrasts]  # fmt: skip
    return "\n".join(lines) + "\n"


def claim(contrast: Contrast) -> str:
    """Return what is claimed of the estimand, in words."""
    limit = f"{contrast.limit:g}"
    return f"between -{limit} and {limit}" if contrast.direction == "within" else f"{contrast.direction} {limit}"


def verdict_text(question: Question, results: Mapping[str, Result]) -> str:
    """Return every declared contrast of a question with its result as a Markdown table; its head names the question."""
    head = f"| {question.name} | claim | estimate | p | p, Holm | shown | could have seen |"
    lines = [f"**{question.name}.** {question.text}\n", head, f"|{'---|' * 7}"]
    for contrast, (estimate, p, detectable), adjusted, shown in verdicts(question, results):
        seen = f"{detectable:.3g}" if math.isfinite(detectable) else "-"
        cells = (
            contrast.name,
            claim(contrast),
            estimate,
            f"{p:.2g}",
            f"{adjusted:.2g}",
            "yes" if shown else "no",
            seen,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    ranges = any(result.estimate.how.startswith(NO_INTERVAL) for result in results.values())
    ends = "Round brackets: from the least to the largest unit, no interval." if ranges else "Intervals over these."
    return "\n".join(lines) + (
        f"\n\nUnits: {question.unit}. {ends} {ASSUMED.format(unit='them')} Could have seen: in 80 % of repeats.\n"
    )
