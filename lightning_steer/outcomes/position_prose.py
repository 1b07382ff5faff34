"""A table and sentences on steering at each position of the wanted answer."""

from lightning_steer.outcomes.prose import TextTable, p_value, signed
from lightning_steer.outcomes.records import MeasureOutcome
from lightning_steer.statistics.dose_response import LEVEL


def position_table(measure: MeasureOutcome) -> TextTable | None:
    """Return the change at each position of the wanted answer; None if no positions are named."""
    if measure.positions is None:
        return None
    changes = measure.positions.changes
    places = list(next(iter(changes.values())))
    steered = [
        (outcome.setting, changes[outcome.setting]) for outcome in measure.settings if outcome.setting in changes
    ]
    rows = [
        (name, *(f"{signed(estimates[place])}, n {estimates[place].n:,}" for place in places))
        for name, estimates in steered
    ]
    return TextTable(("setting", *(f"where the answer is {place}" for place in places)), tuple(rows))


def position_sentences(measure: MeasureOutcome) -> list[str]:
    """Return sentences on whether steering certainly moves a position instead of the behaviour."""
    if measure.positions is None:
        return []
    step, claims = measure.positions.step, measure.positions.claims
    note = f"{claims} pairs of settings and of places were looked at, at {LEVEL:g} together"
    if step is None:
        return [f"It rises for certain at no place of the answer while it falls at another ({note})."]
    return [
        f"From {step.start} to {step.end} it certainly rises where the answer is {step.rises_at}, and certainly falls "
        f"where it is {step.falls_at} (p {p_value(step.p)}; {note}). Steering moves the place, not "
        f"{measure.name}."
    ]
