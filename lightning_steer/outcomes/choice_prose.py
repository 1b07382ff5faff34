"""The choice under promises, in sentences and a table."""

from lightning_steer.outcomes import calls
from lightning_steer.outcomes.prose import TextTable, p_value, signed
from lightning_steer.outcomes.records import Candidate, Judgement, Measured, PromiseOutcome, SettingChoice


def verdict(judgement: Judgement) -> list[str]:
    """Return what is certified, with effect and damage, or why nothing is."""
    choice = judgement.choice
    if choice is None:
        return ["No promise was asked for, so no setting is chosen. Name what steering is for and what it may damage."]
    sentences = _chosen(choice) if choice.chosen is not None else _abstained(choice)
    sentences[1:1] = calls.sentences(judgement)
    if not any(not promise.benefit for promise in choice.promises):
        sentences.append("No harm is limited, so nothing is certified about what else steering changes.")
    return sentences


def _chosen(choice: SettingChoice) -> list[str]:
    chosen = next(candidate for candidate in choice.candidates if candidate.setting == choice.chosen)
    promises = "; ".join(map(str, choice.promises))
    certified = sum(candidate.certified for candidate in choice.candidates)
    benefit = chosen.promises[0]
    sentences = [
        f"Setting {choice.chosen} is certified at confidence {1 - choice.delta:g} to keep every promise: {promises}"
        + (f" (of {_clustered(choice)}: the mean over clusters, each counting once)." if _clustered(choice) else "."),
        *_over_rows(choice),
        f"{certified} of {len(choice.candidates)} settings are certified; of these it has the largest observed "
        f"{_change_of(benefit, choice)}.",
    ]
    if not choice.remade:
        return [
            *sentences,
            "All items chose, so its effect is not measured afresh: the figures below are those of a winner, and lean "
            "towards too good.",
        ]
    return [
        *sentences,
        f"On the items that had no part in the choice: {'; '.join(_fresh(measured) for measured in choice.remade)}.",
    ]


def _clustered(choice: SettingChoice) -> str:
    """Return the promised measures that have clusters."""
    return ", ".join(name for name, unit in choice.counted.items() if unit == "clusters")


def _over_rows(choice: SettingChoice) -> list[str]:
    """Return which promises the chosen setting breaks, or may break, if every row counts once."""
    lead = "On the items that had no part in the choice" if choice.remade else "On the items, which all chose,"
    sentences = []
    for measured in choice.over_rows:
        low, high = (measured.promise.holds(end) for end in (measured.change.low, measured.change.high))
        if not measured.promise.holds(measured.change.value):
            verdict = "WARNING: the mean over rows breaks this promise"
        elif not (low and high):
            verdict = "The mean over rows may break this promise, for its interval reaches beyond the limit"
        else:
            continue
        sentences.append(
            f"{verdict}: {measured.promise}. {lead} it is {signed(measured.change)}, and nothing is certified about it."
        )
    return sentences


def _fresh(measured: Measured) -> str:
    counts = f"{measured.rose} rose, {measured.fell} fell, n {measured.change.n:,}"
    if measured.over_clusters is None:
        return f"{measured.promise.target} {signed(measured.change)} ({counts})"
    return (
        f"{measured.promise.target} {signed(measured.over_clusters)} as a mean over {measured.change.clusters:,} "
        f"clusters, {signed(measured.change)} as a mean over rows ({counts})"
    )


def _change_of(outcome: PromiseOutcome, choice: SettingChoice) -> str:
    """Return a change among the items that chose."""
    word = "fall" if outcome.promise.sign < 0 else "rise"
    mean = " as a mean over clusters" if choice.counted[outcome.promise.target] == "clusters" else ""
    return f"{word} of {outcome.promise.target}, {outcome.change:+.3f}{mean} among those that chose"


def _abstained(choice: SettingChoice) -> list[str]:
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
            "Every setting is observed to break a promise: if these are the true changes, no number of items would "
            "certify one.",
        ]
    failed = " ".join(_failed(outcome, choice) for outcome in nearest.promises if not outcome.kept)
    return [*sentences, f"The nearest is setting {nearest.setting}. {failed}"]


def _failed(outcome: PromiseOutcome, choice: SettingChoice) -> str:
    unit, count = choice.counted[outcome.promise.target], sum(choice.units[outcome.promise.target])
    note = f"; there are {count:,}" if unit == "items" else ""
    return (
        f"There it is not certified that {outcome.promise}: the observed change is {outcome.change:+.3f}"
        f"{' as a mean over clusters' if unit == 'clusters' else ''}, p "
        f"{p_value(outcome.p)}, and below {p_value(choice.risk)} is needed. If this is the true change, about "
        f"{outcome.needed:,} {unit} would certify it in about half of tables or more{note}; if the true change is at "
        "the limit or worse, no number would."
    )


def promise_table(choice: SettingChoice) -> TextTable:
    """Return every promise at every setting, on the items that chose."""
    columns = ("setting", *map(str, choice.promises), "all promises")
    rows = [
        (candidate.setting, *(_cell(outcome, choice) for outcome in candidate.promises), _all(candidate))
        for candidate in choice.candidates
    ]
    return TextTable(columns, tuple(rows), choice.chosen)


def _cell(outcome: PromiseOutcome, choice: SettingChoice) -> str:
    figures = f"{outcome.change:+.3f}, p {p_value(outcome.p)}"
    if outcome.kept:
        return f"certified ({figures})"
    number = f"about {outcome.needed:,}" if outcome.needed else "no number of"
    return f"not certified ({figures}; {number} {choice.counted[outcome.promise.target]} if this is true)"


def _all(candidate: Candidate) -> str:
    return "certified" if candidate.certified else "not certified"


def promise_notes(choice: SettingChoice) -> list[str]:
    """Return how the certificate was computed and what it assumes."""
    units = "; ".join(
        f"{name}: {chose:,} chose, {others:,} did not" if others else f"{name}: all {chose:,} chose"
        for name, (chose, others) in choice.units.items()
    )
    clustered = [name for name, unit in choice.counted.items() if unit == "clusters"]
    least_text = "; ".join(f"{promise}: {n:,} {choice.counted[promise.target]}" for promise, n in choice.least.items())
    notes = [
        f"Rows of the promised measures: {units}.",
        f"A setting is certified if every promise's p-value is below {p_value(choice.risk)}, which is delta "
        f"{choice.delta:g} shared among {len(choice.candidates)} settings (Learn-then-Test: intersection-union within "
        "a setting, Bonferroni over settings). The chance that the chosen setting breaks any promise is then at most "
        f"{choice.delta:g}. P-values: {'; '.join(choice.how)}. A number of items or clusters is "
        "what certifies in about half of tables or more if the observed change is the true one, which the data do not "
        "say; with a true change at the limit or worse, none does.",
        "This holds for one call whose promises, limits, settings, --split, --seed and number of items were fixed "
        "before any outcome was seen. The best of several calls, or of several looks at a table that grows, is false "
        "more often.",
    ]
    if least_text:
        notes.append(
            f"If nothing changed at all, these many that choose would be needed to be sure of it: {least_text}."
        )
    if clustered:
        notes.append(f"In {', '.join(clustered)} the promise is of the mean over clusters, each counting once.")
    return notes
