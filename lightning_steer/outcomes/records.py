"""The records of a judgement."""

from typing import Any, NamedTuple

from lightning_steer.outcomes.positions import PositionOutcome
from lightning_steer.outcomes.promise_text import PromiseText
from lightning_steer.statistics.dose_response import Shape
from lightning_steer.statistics.estimate import Estimate


class SettingOutcome(NamedTuple):
    """One measure at one setting, compared with the baseline."""

    setting: str
    strength: float | None
    value: Estimate
    change: Estimate
    """Paired change from the baseline; for the baseline itself, 0 by definition."""
    rose: int
    """Units whose value is larger than at the baseline."""
    fell: int
    """Units whose value is smaller."""
    groups: dict[str, Estimate]
    """Paired change in each group."""


class MeasureOutcome(NamedTuple):
    """One measure at all its settings, in the order of strengths, or of the table."""

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
    """None if settings are names, or fewer than three."""
    same_both_ways: tuple[tuple[float, int, float], ...]
    """Strengths s at which -s and s certainly move the measure in the same direction: s, direction, p-value."""
    positions: PositionOutcome | None = None
    """By the position of the wanted answer; None if no positions are named."""


class PromiseOutcome(NamedTuple):
    """One promise at one setting, on the items that choose."""

    promise: PromiseText
    kept: bool
    """Certified at this setting's share of delta."""
    p: float
    change: float
    """Observed mean change, over clusters if there are any; not negated for a fall."""
    needed: int | None
    """Items or clusters in all, both parts of the split, that would certify it if they were like these; None: none."""


class Candidate(NamedTuple):
    """One setting and all promises."""

    setting: str
    certified: bool
    promises: tuple[PromiseOutcome, ...]

    @property
    def needed(self) -> float:
        """Number of items or clusters that would certify all promises; infinite if no number would."""
        return max(float("inf") if promise.needed is None else promise.needed for promise in self.promises)


class Measured(NamedTuple):
    """The chosen setting on some items, for one promise."""

    promise: PromiseText
    change: Estimate
    """Mean over rows."""
    over_clusters: Estimate | None
    """Mean over clusters, each counting once, which the certificate is about; None without clusters."""
    rose: int
    fell: int


class SettingChoice(NamedTuple):
    """The setting that is certified to keep all promises with the largest benefit, or none."""

    promises: tuple[PromiseText, ...]
    delta: float
    risk: float
    """delta divided among the candidates: the level of each p-value."""
    chosen: str | None
    candidates: tuple[Candidate, ...]
    remade: tuple[Measured, ...]
    """Estimates on the items that were not used for the choice; empty if nothing was chosen or all items chose."""
    over_rows: tuple[Measured, ...]
    """For promises about clusters: the same, or on all items if all chose; empty if nothing was chosen."""
    units: dict[str, tuple[int, int]]
    """By target of a promise: numbers of units that chose, and of the others."""
    counted: dict[str, str]
    """By target: the unit of ``needed`` and the certificates, items or clusters."""
    least: dict[PromiseText, int]
    """By harm: items or clusters that must choose for it to be certified if none of them changed."""
    how: tuple[str, ...]


class JudgedSetting(NamedTuple):
    """One setting, scored by two judges."""

    setting: str
    change: Estimate
    """By the judge whose scores count."""
    other: Estimate
    """By the other judge, on the same items."""
    difference: Estimate
    """Difference between the two changes, estimated item by item."""
    same_score: float
    """Share of items with the same score at this setting."""
    changed_alike: float | None
    """Share of equal changes among the items that changed by either judge; None if none changed."""


class JudgeComparison(NamedTuple):
    """Two judges of one measure."""

    measure: str
    judge: str
    other: str
    n: int
    settings: tuple[JudgedSetting, ...]


class OtherVerdict(NamedTuple):
    """The choice if another judge's scores counted."""

    judge: str
    chosen: str | None


class LabelledSetting(NamedTuple):
    """A change scored by a judge on all items and corrected by labels."""

    setting: str
    judged: Estimate
    labels: Estimate
    """By labels alone."""
    corrected: Estimate
    weight: float
    """Weight of the judge in the corrected change; 0: only labels count."""


class LabelledMeasure(NamedTuple):
    """A measure scored by a judge on all items and labelled by a human on some."""

    measure: str
    judge: str
    human: str
    labelled: int
    n: int
    clustered: bool
    settings: tuple[LabelledSetting, ...]


class Call(NamedTuple):
    """Identifies the judged rows and the settings, so that a later call can recognise them."""

    options: str
    """Digest of promises, delta, baseline, clusters, ranges and judges."""
    outcomes: str
    """Digest of all values, independent of the order of rows."""
    split: float
    seed: int


class Judgement(NamedTuple):
    """The judgement of a table of outcomes."""

    sources: tuple[str, ...]
    rows: int
    baseline: str
    numeric: bool
    """Whether settings are strengths."""
    split: float
    seed: int
    measures: tuple[MeasureOutcome, ...]
    choice: SettingChoice | None
    judges: tuple[JudgeComparison, ...]
    other_verdicts: tuple[OtherVerdict, ...]
    labelled: tuple[LabelledMeasure, ...]
    notes: tuple[str, ...]
    call: Call
    earlier: tuple[Call, ...] = ()
    """Other calls recorded on the page that this one replaces."""

    def save(self, path: Any) -> None:
        """Write the judgement in the format of the suffix: ``.html``, ``.md`` or ``.json``; else raise ValueError."""
        from lightning_steer.outcomes.saving import save

        save(self, path)

    def __str__(self) -> str:
        from lightning_steer.outcomes.text import markdown

        return markdown(self)
