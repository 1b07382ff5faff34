"""A judgement in sentences and tables, for all output formats."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lightning_steer.outcomes import calls
from lightning_steer.outcomes.records import (
    Judgement,
    MeasureOutcome,
    SettingOutcome,
)
from lightning_steer.report.tables import footnotes as notes_of
from lightning_steer.report.tables import number
from lightning_steer.statistics.dose_response import LEVEL, Step
from lightning_steer.statistics.estimate import Estimate


class TextTable(NamedTuple):
    """A table of plain texts; the first column names the rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    own: str | None = None
    """Name of the emphasised row."""


def signed(estimate: Estimate) -> str:
    """Format a change as ``+value [low, high]``, or the value alone."""
    low, high = number(estimate.low), number(estimate.high)
    value = f"{'+' if estimate.value > 0 else ''}{number(estimate.value)}"
    return value if low == high == "-" else f"{value} [{low}, {high}]"


def counted(measure: MeasureOutcome) -> str:
    """State how many items, seeds and clusters a measure has."""
    units = f"{measure.items:,} items"
    if measure.n > measure.items:
        units = f"{measure.n:,} rows a setting, of {units} with several seeds"
    return units + (f" in {measure.clusters:,} clusters" if measure.clusters else "")


def p_value(p: float) -> str:
    """Format a p-value with its meaningful digits."""
    return "<0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def outcome_table(measure: MeasureOutcome, chosen: str | None) -> TextTable:
    """Return the table of values, changes, and numbers of items that rose and fell."""
    rows = [
        (
            outcome.setting,
            f"{number(outcome.value.value)} [{number(outcome.value.low)}, {number(outcome.value.high)}]",
            "baseline" if outcome.change.how == "by definition" else signed(outcome.change),
            f"{outcome.rose:,}",
            f"{outcome.fell:,}",
            f"{measure.n - outcome.rose - outcome.fell:,}",
        )
        for outcome in measure.settings
    ]
    return TextTable(("setting", "value", "change", "rose", "fell", "same"), tuple(rows), chosen)


def group_table(measure: MeasureOutcome) -> TextTable | None:
    """Return the table of changes by group; for many groups, the lowest and the highest."""
    steered = [outcome for outcome in measure.settings if outcome.groups]
    if not steered:
        return None
    names = list(steered[0].groups)
    if len(names) <= 6:
        rows = [
            (outcome.setting, *(f"{signed(outcome.groups[g])}, n {outcome.groups[g].n:,}" for g in names))
            for outcome in steered
        ]
        return TextTable(("setting", *names), tuple(rows))
    rows = [(outcome.setting, _extreme(outcome, False), _extreme(outcome, True)) for outcome in steered]
    return TextTable(("setting", f"lowest of {len(names)} groups", f"highest of {len(names)} groups"), tuple(rows))


def _extreme(outcome: SettingOutcome, highest: bool) -> str:
    name = (max if highest else min)(outcome.groups, key=lambda group: outcome.groups[group].value)
    return f"{name}: {signed(outcome.groups[name])}, n {outcome.groups[name].n:,}"


def measure_sentences(measure: MeasureOutcome) -> list[str]:
    """Return sentences on what a measure's table does not show."""
    sentences = []
    hidden = max(measure.settings, key=lambda outcome: min(outcome.rose, outcome.fell))
    if min(hidden.rose, hidden.fell) > 0:
        units = "items" if measure.n == measure.items else "rows"
        counts = f"at {hidden.setting}, {hidden.rose:,} {units} rose and {hidden.fell:,} fell"
        balance = f"a balance of {hidden.rose - hidden.fell:+,} of {measure.n:,}"
        sentences.append(
            f"Behind the total: {counts}, {balance}." if measure.share else f"Behind the mean: {counts}, by any amount."
        )
    if measure.shape is not None:
        sentences.append(_shape(measure))
    for direction, verb in ((1, "raise"), (-1, "lower")):
        matches = [(strength, p) for strength, sign, p in measure.same_both_ways if sign == direction]
        if matches:
            strengths = ", ".join(f"{strength:.12g}" for strength, _ in matches)
            sentences.append(
                f"Both signs {verb} it at a strength of {strengths} from the baseline (largest p "
                f"{p_value(max(p for _, p in matches))}). A vector that does the same in both directions is not a "
                f"direction for {measure.name}."
            )
    groups = next((outcome.groups for outcome in measure.settings if outcome.groups), {})
    if len(groups) > 6:
        sentences.append(
            f"The lowest and the highest of {len(groups)} groups were picked for being that: their intervals hold for "
            "a group named beforehand, and lean away from the middle."
        )
    return sentences


def _shape(measure: MeasureOutcome) -> str:
    shape = measure.shape
    assert shape is not None
    ends = f"From {measure.settings[0].setting} to {measure.settings[-1].setting}"

    def step(change: Step) -> str:
        names = [measure.settings[i].setting for i in (change.start, change.end)]
        return f"from {names[0]} to {names[1]} (p {p_value(change.p)})"

    if shape.rise and shape.fall:
        text = f"Not monotone: it certainly rises {step(shape.rise)} and certainly falls {step(shape.fall)}"
    elif shape.rise or shape.fall:
        verb, surest, opposite = ("rises", shape.rise, "falls") if shape.rise else ("falls", shape.fall, "rises")
        assert surest is not None
        text = f"{ends} it certainly {verb}, most surely {step(surest)}, and nowhere certainly {opposite}"
    else:
        text = f"{ends} no rise or fall between two settings is certain"
    return f"{text}; {shape.pairs} pairs of settings were compared, at {LEVEL:g} together ({shape.how})."


def footnotes(measures: Sequence[MeasureOutcome], more: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return notes on how intervals were computed, and what they do not say."""
    rows: list[Mapping[str, Any]] = []
    for measure in measures:
        for outcome in measure.settings:
            rows.append({measure.name: outcome.value._asdict(), f"change of {measure.name}": outcome.change._asdict()})
            rows += [{f"{measure.name} by group": estimate._asdict()} for estimate in outcome.groups.values()]
    return [
        *notes_of([*rows, *more]),
        "Each interval holds by itself in 95 % of tables; none is adjusted for how many there are.",
    ]


def all_notes(judgement: Judgement, more: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return all final notes; ``more`` are further estimates by name whose intervals are explained."""
    sources = f"Read from {', '.join(judgement.sources)}: {judgement.rows:,} rows. Baseline: {judgement.baseline}."
    parts = f"A share of {judgement.split:g} of the items chose (seed {judgement.seed})." if judgement.choice else ""
    rose = "Rose and fell: items whose value is larger or smaller than at the baseline."
    call_lines = "; ".join(map(calls.line, (judgement.call, *judgement.earlier)))
    return [
        f"{sources} {parts}".rstrip(),
        rose,
        f"{call_lines}.",
        *judgement.notes,
        *footnotes(judgement.measures, more),
    ]
