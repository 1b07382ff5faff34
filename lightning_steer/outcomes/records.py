"""What a judgement holds, as records with names."""

from typing import Any, NamedTuple

from lightning_steer.outcomes.positions import PositionOutcome
from lightning_steer.outcomes.promise_text import PromiseText
from lightning_steer.statistics.dose_response import Shape
from lightning_steer.statistics.estimate import Estimate


class SettingOutcome(NamedTuple):
    """One measure at one setting, beside the baseline."""

    setting: str
    strength: float | None
    value: Estimate
    change: Estimate
    """Paired change from the baseline; of the baseline itself 0 by definition."""
    rose: int
    """Units whose value is larger than at the baseline."""
    fell: int
    """Units whose value is smaller."""
    groups: dict[str, Estimate]
    """Paired change in each group."""


class MeasureOutcome(NamedTuple):
    """One measure at all its settings, in the order of strengths, or as they came."""

    name: str
    share: bool
    low: float
    high: float
    n: int
    """Units: items, or items times seeds."""
    items: int
    clusters: int | None
    settings: tuple[SettingOutcome, ...]
    shape: Shape | None
    """None where settings are names, or there are fewer than three."""
    same_both_ways: tuple[tuple[float, int, float], ...]
    """Strengths s at which -s and s certainly move the measure the same way: s, the way, the p-value."""
    positions: PositionOutcome | None = None
    """By the place where the wanted answer stood; None where no places are named."""


class PromiseOutcome(NamedTuple):
    """One promise at one setting, on the items that choose."""

    promise: PromiseText
    kept: bool
    """Certified at this setting's share of delta."""
    p: float
    change: float
    """Observed mean change, over clusters where there are any; not turned round for a fall."""
    needed: int | None
    """Items or clusters in all, both parts of the split, that would certify it if they were like these; None: none."""


class Candidate(NamedTuple):
    """One setting and every promise."""

    setting: str
    certified: bool
    promises: tuple[PromiseOutcome, ...]

    @property
    def needed(self) -> float:
        """Return how many items or clusters would certify all promises; infinity where no number would."""
        return max(float("inf") if promise.needed is None else promise.needed for promise in self.promises)


class Measured(NamedTuple):
    """The chosen setting on some items, for one promise."""

    promise: PromiseText
    change: Estimate
    """Mean over rows."""
    over_clusters: Estimate | None
    """Mean over clusters, each counting once, which is what the certificate is of; None without clusters."""
    rose: int
    fell: int


class Choice(NamedTuple):
    """The setting that is certified to keep all promises with the largest benefit, or none."""

    promises: tuple[PromiseText, ...]
    delta: float
    risk: float
    """delta shared among the candidates: what each p-value is compared with."""
    chosen: str | None
    candidates: tuple[Candidate, ...]
    remade: tuple[Measured, ...]
    """On the items that had no part in the choice; empty where nothing was chosen or all items chose."""
    over_rows: tuple[Measured, ...]
    """Of promises about clusters: the same, or where all items chose, on these; empty where nothing was chosen."""
    units: dict[str, tuple[int, int]]
    """By target of a promise: units that chose, and the others."""
    counted: dict[str, str]
    """By target: what ``needed`` and the certificates count, items or clusters."""
    least: dict[PromiseText, int]
    """By harm: items or clusters that must choose for it to be certified if none of them changed."""
    how: tuple[str, ...]


class JudgedSetting(NamedTuple):
    """One setting as two judges see it."""

    setting: str
    change: Estimate
    """By the judge whose scores count."""
    other: Estimate
    """By the other judge, on the same items."""
    difference: Estimate
    """Of both changes, item by item."""
    same_score: float
    """Share of items with the same score at this setting."""
    changed_alike: float | None
    """Share of items that changed by either judge which changed the same by both; None where none changed."""


class JudgeComparison(NamedTuple):
    """Two judges of one measure."""

    measure: str
    judge: str
    other: str
    n: int
    settings: tuple[JudgedSetting, ...]


class OtherVerdict(NamedTuple):
    """What would be chosen if another judge's scores counted."""

    judge: str
    chosen: str | None


class LabelledSetting(NamedTuple):
    """A change that a judge scored on all items and labels correct."""

    setting: str
    judged: Estimate
    labels: Estimate
    """By the labels alone."""
    corrected: Estimate
    weight: float
    """How much the judge counts in the corrected change; 0: the labels count alone."""


class LabelledMeasure(NamedTuple):
    """A measure that a judge scored on all items and somebody labelled on some."""

    measure: str
    judge: str
    human: str
    labelled: int
    n: int
    clustered: bool
    settings: tuple[LabelledSetting, ...]


class Call(NamedTuple):
    """What was judged and how, to be recognised by a later call."""

    options: str
    """Digits that stand for promises, delta, baseline, clusters, ranges and judges."""
    outcomes: str
    """Digits that stand for all values, whatever the order of rows."""
    split: float
    seed: int


class Judgement(NamedTuple):
    """All that a table of outcomes says."""

    sources: tuple[str, ...]
    rows: int
    baseline: str
    numeric: bool
    """Settings are strengths."""
    split: float
    seed: int
    measures: tuple[MeasureOutcome, ...]
    choice: Choice | None
    judges: tuple[JudgeComparison, ...]
    other_verdicts: tuple[OtherVerdict, ...]
    labelled: tuple[LabelledMeasure, ...]
    notes: tuple[str, ...]
    call: Call
    earlier: tuple[Call, ...] = ()
    """Other calls that the page held which this one is saved over."""

    def save(self, path: Any) -> None:
        """Write the judgement as the name says: ``.html``, ``.md`` or ``.json``; raises ValueError for others."""
        from lightning_steer.outcomes.saving import save

        save(self, path)

    def __str__(self) -> str:
        from lightning_steer.outcomes.text import markdown

        return markdown(self)
