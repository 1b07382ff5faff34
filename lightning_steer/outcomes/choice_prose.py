"""The choice under promises, in sentences and a table."""

from lightning_steer.outcomes.prose import TextTable, p_value, signed
from lightning_steer.outcomes.records import Candidate, Choice, Judgement, PromiseOutcome


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
