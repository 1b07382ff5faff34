"""A judgement in sentences and tables, for every form that it is written in."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lightning_steer.outcomes.records import (
    Candidate,
    Choice,
    Judgement,
    MeasureOutcome,
    PromiseOutcome,
    SettingOutcome,
)
from lightning_steer.report.tables import footnotes as notes_of
from lightning_steer.report.tables import number
from lightning_steer.statistics.dose_response import LEVEL, Step
from lightning_steer.statistics.estimate import Estimate


class TextTable(NamedTuple):
    """A table of plain texts, the first column naming the rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    own: str | None = None
    """The row to be emphasised."""


def signed(estimate: Estimate) -> str:
    """Return ``+value [low, high]`` of a change, or the value alone."""
    low, high = number(estimate.low), number(estimate.high)
    value = f"{'+' if estimate.value > 0 else ''}{number(estimate.value)}"
    return value if low == high == "-" else f"{value} [{low}, {high}]"


def counted(measure: MeasureOutcome) -> str:
    """Return how many items, seeds and clusters a measure has."""
    units = f"{measure.items:,} items"
    if measure.n > measure.items:
        units = f"{measure.n:,} rows a setting, of {units} with several seeds"
    return units + (f" in {measure.clusters:,} clusters" if measure.clusters else "")


def verdict(judgement: Judgement) -> list[str]:
    """Return what is certified, with effect and damage in one breath, or why nothing is."""
    choice = judgement.choice
    if choice is None:
        return ["No promise was asked for, so no setting is chosen. Name what steering is for and what it may damage."]
    sentences = _chosen(choice) if choice.chosen is not None else _abstained(choice)
    if not any(not promise.benefit for promise in choice.promises):
        sentences.append("No harm is limited, so nothing is certified about what else steering changes.")
    return sentences


def _chosen(choice: Choice) -> list[str]:
    own = next(candidate for candidate in choice.candidates if candidate.setting == choice.chosen)
    kept = "; ".join(map(str, choice.promises))
    certified = sum(candidate.certified for candidate in choice.candidates)
    first = own.promises[0]
    sentences = [
        f"Setting {choice.chosen} is certified at confidence {1 - choice.delta:g} to keep every promise: {kept}.",
        f"{certified} of {len(choice.candidates)} settings are certified; of these it has the largest observed "
        f"{_change_of(first)}.",
    ]
    if not choice.remade:
        return [
            *sentences,
            "All items chose, so its effect is not measured afresh: the figures below are those of a winner, and lean "
            "towards too good.",
        ]
    fresh = "; ".join(
        f"{one.promise.target} {signed(one.change)} ({one.rose} rose, {one.fell} fell, n {one.change.n:,}"
        + (f" in {one.change.clusters:,} clusters" if one.change.clusters else "")
        + ")"
        for one in choice.remade
    )
    return [*sentences, f"On the items that had no part in the choice: {fresh}."]


def _change_of(outcome: PromiseOutcome) -> str:
    """Return a change among the items that chose."""
    word = "fall" if outcome.promise.sign < 0 else "rise"
    return f"{word} of {outcome.promise.target}, {outcome.change:+.3f} among those that chose"


def _abstained(choice: Choice) -> list[str]:
    sentences = [
        f"No setting is certified at confidence {1 - choice.delta:g} to keep every promise: on this evidence, do not "
        "steer."
    ]
    total = len(choice.candidates)
    counts = [
        f"{promise} is certified at {sum(c.promises[i].kept for c in choice.candidates)} of {total} settings"
        for i, promise in enumerate(choice.promises)
    ]
    sentences.append("; ".join(counts) + ".")
    nearest = min(choice.candidates, key=lambda candidate: candidate.needed)
    if nearest.needed == float("inf"):
        return [
            *sentences,
            "No number of items like these would settle it: every setting is observed to break a promise.",
        ]
    failed = " ".join(_failed(one, choice) for one in nearest.promises if not one.kept)
    return [*sentences, f"The nearest is setting {nearest.setting}. {failed}"]


def _failed(one: PromiseOutcome, choice: Choice) -> str:
    unit, there = choice.counted[one.promise.target], sum(choice.units[one.promise.target])
    have = f"; there are {there:,}" if unit == "items" else ""
    return (
        f"There it is not certified that {one.promise}: the observed change is {one.change:+.3f}, p "
        f"{p_value(one.p)}, and below {p_value(choice.risk)} is needed. About {one.needed:,} {unit} like these would "
        f"settle it{have}."
    )


def p_value(p: float) -> str:
    """Return a p-value with as many digits as tell."""
    return "<0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def promise_table(choice: Choice) -> TextTable:
    """Return every promise at every setting, on the items that chose."""
    columns = ("setting", *map(str, choice.promises), "all promises")
    rows = [
        (candidate.setting, *(_cell(one, choice) for one in candidate.promises), _all(candidate))
        for candidate in choice.candidates
    ]
    return TextTable(columns, tuple(rows), choice.chosen)


def _cell(one: PromiseOutcome, choice: Choice) -> str:
    seen = f"{one.change:+.3f}, p {p_value(one.p)}"
    if one.kept:
        return f"certified ({seen})"
    unit = choice.counted[one.promise.target]
    return (
        f"not certified ({seen}; {f'about {one.needed:,} {unit}' if one.needed else f'no number of {unit}'} would do)"
    )


def _all(candidate: Candidate) -> str:
    return "certified" if candidate.certified else "not certified"


def promise_notes(choice: Choice) -> list[str]:
    """Return how the certificate was made and what it rests on."""
    units = "; ".join(
        f"{name}: {chose:,} chose, {others:,} did not" if others else f"{name}: all {chose:,} chose"
        for name, (chose, others) in choice.units.items()
    )
    clustered = [name for name, unit in choice.counted.items() if unit == "clusters"]
    least = "; ".join(f"{promise}: {n:,} {choice.counted[promise.target]}" for promise, n in choice.least.items())
    notes = [
        f"Rows of the promised measures: {units}.",
        f"A setting is certified if every promise's p-value is below {p_value(choice.risk)}, which is delta "
        f"{choice.delta:g} shared among {len(choice.candidates)} settings (Learn-then-Test: intersection-union within "
        "a setting, Bonferroni over settings). The chance that the chosen setting breaks any promise is then at most "
        f"{choice.delta:g}. P-values: {'; '.join(choice.how)}. The numbers that would do assume items like these, and "
        "betting.",
    ]
    if least:
        notes.append(f"If nothing changed at all, these many that choose would be needed to be sure of it: {least}.")
    if clustered:
        notes.append(f"In {', '.join(clustered)} the promise is of the mean over clusters, each counting once.")
    return notes


def outcome_table(measure: MeasureOutcome, chosen: str | None) -> TextTable:
    """Return values, changes, and the items that rose and fell behind them."""
    rows = [
        (
            one.setting,
            f"{number(one.value.value)} [{number(one.value.low)}, {number(one.value.high)}]",
            "baseline" if one.change.how == "by definition" else signed(one.change),
            f"{one.rose:,}",
            f"{one.fell:,}",
            f"{measure.n - one.rose - one.fell:,}",
        )
        for one in measure.settings
    ]
    return TextTable(("setting", "value", "change", "rose", "fell", "same"), tuple(rows), chosen)


def group_table(measure: MeasureOutcome) -> TextTable | None:
    """Return the change in each group; of many groups the lowest and the highest."""
    steered = [one for one in measure.settings if one.groups]
    if not steered:
        return None
    names = list(steered[0].groups)
    if len(names) <= 6:
        rows = [(one.setting, *(f"{signed(one.groups[g])}, n {one.groups[g].n:,}" for g in names)) for one in steered]
        return TextTable(("setting", *names), tuple(rows))
    rows = [(one.setting, _extreme(one, False), _extreme(one, True)) for one in steered]
    return TextTable(("setting", f"lowest of {len(names)} groups", f"highest of {len(names)} groups"), tuple(rows))


def _extreme(one: SettingOutcome, highest: bool) -> str:
    name = (max if highest else min)(one.groups, key=lambda group: one.groups[group].value)
    return f"{name}: {signed(one.groups[name])}, n {one.groups[name].n:,}"


def measure_sentences(measure: MeasureOutcome) -> list[str]:
    """Return what the table of a measure does not say by itself."""
    sentences = []
    hidden = max(measure.settings, key=lambda one: min(one.rose, one.fell))
    if min(hidden.rose, hidden.fell) > 0:
        net = hidden.rose - hidden.fell
        sentences.append(
            f"Behind the total: at {hidden.setting}, {hidden.rose:,} items rose and {hidden.fell:,} fell, a balance of "
            f"{net:+,} of {measure.n:,}."
        )
    if measure.shape is not None:
        sentences.append(_shape(measure))
    for strength, sign, p in measure.same_both_ways:
        sentences.append(
            f"Both signs {'raise' if sign > 0 else 'lower'} it: {strength:g} and {-strength:g} from the baseline (p "
            f"{p_value(p)}). A vector that does the same in both directions is not a direction for {measure.name}."
        )
    groups = next((one.groups for one in measure.settings if one.groups), {})
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

    def step(one: Step) -> str:
        names = [measure.settings[i].setting for i in (one.start, one.end)]
        return f"from {names[0]} to {names[1]} (p {p_value(one.p)})"

    if shape.rise and shape.fall:
        text = f"Not monotone: it certainly rises {step(shape.rise)} and certainly falls {step(shape.fall)}"
    elif shape.rise or shape.fall:
        way, one, other = ("rises", shape.rise, "falls") if shape.rise else ("falls", shape.fall, "rises")
        assert one is not None
        text = f"{ends} it certainly {way}, most surely {step(one)}, and nowhere certainly {other}"
    else:
        text = f"{ends} no rise or fall between two settings is certain"
    return f"{text}; {shape.pairs} pairs of settings were compared, at {LEVEL:g} together ({shape.how})."


def footnotes(measures: Sequence[MeasureOutcome], more: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how intervals were made, and what they do not say."""
    rows: list[Mapping[str, Any]] = []
    for measure in measures:
        for one in measure.settings:
            rows.append({measure.name: one.value._asdict(), f"change of {measure.name}": one.change._asdict()})
            rows += [{f"{measure.name} by group": estimate._asdict()} for estimate in one.groups.values()]
    return [
        *notes_of([*rows, *more]),
        "Each interval holds by itself in 95 % of tables; none is adjusted for how many there are.",
    ]


def all_notes(judgement: Judgement, more: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return every note at the end; ``more`` are further estimates by name, to be told how they were made."""
    sources = f"Read from {', '.join(judgement.sources)}: {judgement.rows:,} rows. Baseline: {judgement.baseline}."
    parts = f"A share of {judgement.split:g} of the items chose (seed {judgement.seed})." if judgement.choice else ""
    rose = "Rose and fell: items whose value is larger or smaller than at the baseline."
    return [f"{sources} {parts}".rstrip(), rose, *judgement.notes, *footnotes(judgement.measures, more)]
