"""The records of a lint."""

import math
from typing import NamedTuple

from lightning_steer.statistics.estimate import Estimate

LEVEL = 0.05
"""Risk that clean pairs raise any imbalance at all."""
TELLS = 0.9
"""Share of all pairs from which a surface feature is said to tell positives from negatives by itself."""
Pair = tuple[str, str, str]
"""Prompt, positive and negative, as :class:`.ContrastPair` has them."""


class Imbalance(NamedTuple):
    """How unevenly a surface feature is spread over positives and negatives."""

    feature: str
    """Such as ``letter A``, ``position``, ``length``, ``first word 'sorry'``."""
    share: Estimate
    """Share of the pairs whose sides differ in the feature in which the positive has it; even pairs have 0.5."""
    p: float | None
    """Exact two-sided p-value after Holm's correction over all features; None where too few pairs differ."""
    told: float
    """Share of all pairs that the feature alone sorts the right way round; ties count half."""
    same_as: list[str]
    """Features that take the same sides in every pair, so that these pairs cannot tell them apart."""
    sentence: str

    @property
    def raised(self) -> bool:
        """Return whether the imbalance is more than chance."""
        return self.p is not None and self.p <= LEVEL

    @property
    def tells(self) -> bool:
        """Return whether the feature alone tells positives from negatives."""
        return self.raised and self.told >= TELLS


class Finding(NamedTuple):
    """A reason not to fit to these pairs as they are."""

    feature: str
    """What was looked at: ``duplicates``, ``leakage``, ``tokens``, or the feature of an imbalance."""
    pairs: int
    """Number of pairs concerned."""
    share: Estimate | None
    """Of an imbalance; None for what is counted."""
    p: float | None
    """Of an imbalance."""
    sentence: str


class LintReport(NamedTuple):
    """What a lint looked at and what it raised."""

    pairs: int
    prompts: int
    """Different prompts: pairs that share one are a cluster."""
    imbalances: list[Imbalance]
    """All features that were looked at, raised or not."""
    findings: list[Finding]

    @property
    def sentences(self) -> list[str]:
        """Return what was raised, for the warnings of a report."""
        return [finding.sentence for finding in self.findings]

    def __str__(self) -> str:
        same = "" if self.prompts == self.pairs else f" with {self.prompts} different prompts, which are the clusters"
        lines = [f"{self.pairs} pairs{same}", *map(_line, self.imbalances), ""]
        lines += [f"Warning: {sentence}" for sentence in self.sentences] or ["Nothing was raised."]
        return "\n".join(lines)


def ends(share: Estimate) -> str:
    """Return a share in percent with its interval, for sentences."""
    interval = "no interval" if math.isnan(share.low) else f"[{100 * share.low:.1f}, {100 * share.high:.1f}]"
    return f"{100 * share.value:.1f} % {interval}"


def _line(imbalance: Imbalance) -> str:
    p = "too few pairs to test" if imbalance.p is None else f"p {imbalance.p:.2g} (Holm)"
    return f"  {imbalance.feature}: positive in {ends(imbalance.share)} of {imbalance.share.n} pairs that differ, {p}"
