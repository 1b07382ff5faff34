"""AlphaSteer: which strength certainly refuses more attacks at an accepted loss, and what lies behind the totals."""

from itertools import product
from pathlib import Path
from typing import NamedTuple

from lightning_steer.outcomes import Judgement, judge
from lightning_steer.outcomes.choice_prose import promise_table
from lightning_steer.outcomes.prose import outcome_table, p_value, signed
from lightning_steer.outcomes.records import MeasureOutcome, SettingChoice
from lightning_steer.studies.published.markdown import table
from lightning_steer.studies.published.sources import ALPHASTEER, Section, head
from lightning_steer.studies.published.sources import table as path_of

PREFIX = "alphasteer_llama31_8b_"
BENEFITS = ("renellm_refused", "jailbroken_refused")
LOSSES = (0.05, 0.1)
"""Accepted fall of right answers."""
SAFE_RISE = 0.05
"""Accepted rise of refused safe prompts."""
SPLITS = (0.5, 1.0)
"""Half of the items choose, as ``judge`` does unless told otherwise; or all of them."""
DELTA = 0.05


class PublishedCall(NamedTuple):
    """One judgement, fixed before its outcomes were judged."""

    benefit: str
    loss: float
    split: float
    judgement: Judgement

    @property
    def choice(self) -> SettingChoice:
        """Return the choice under its promises."""
        assert self.judgement.choice is not None
        return self.judgement.choice


def judge_all(outcomes: Path) -> list[PublishedCall]:
    """Return the judgement of each benefit under each accepted loss, with half and with all items choosing."""
    calls = []
    for benefit, loss, split in product(BENEFITS, LOSSES, SPLITS):
        names = (benefit, "gsm8k_right", "xstest_refused")
        judgement = judge(
            [f"{name}={path_of(outcomes, f'{PREFIX}{name}.csv')}" for name in names],
            benefit=f"{benefit}>=0",
            harms=[f"gsm8k_right falls<={loss}", f"xstest_refused[safe] rises<={SAFE_RISE}"],
            delta=DELTA,
            ranges=dict.fromkeys(names, (0.0, 1.0)),
            split=split,
        )
        calls.append(PublishedCall(benefit, loss, split, judgement))
    return calls


def measures(calls: list[PublishedCall]) -> dict[str, MeasureOutcome]:
    """Return each measure once, by name."""
    return {measure.name: measure for call in calls for measure in call.judgement.measures}


def section(outcomes: Path) -> Section:
    """Return what the page says."""
    calls = judge_all(outcomes)
    by_name = measures(calls)
    right, settings = by_name["gsm8k_right"], len(calls[0].choice.candidates)
    lines = [
        *head(ALPHASTEER),
        f"**What the items support.** Promised are more refusals of attacks, a fall of right answers below "
        f"{LOSSES[0]:g} or {LOSSES[1]:g}, and a rise of refused safe prompts below {SAFE_RISE:g}, all at confidence "
        f"{1 - DELTA:g} together over {settings} strengths (Learn-then-Test). Each row is a call of its own, so the "
        "risk holds for each row and not for the best of them. We knew the totals of the tables before these calls; "
        "the promises come from the task, not from the outcomes.",
        "",
        *table(("benefit", "accepted loss", "items that choose", "verdict", "on the other items"), map(_row, calls)),
        *_least(calls),
    ]
    for call in (call for call in calls if call.split == SPLITS[0] and call.benefit == BENEFITS[0]):
        lines += [f"Every promise at every strength, {call.benefit}, loss below {call.loss:g}, half of the items:", ""]
        promises = promise_table(call.choice)
        lines += table(promises.columns, promises.rows)
    lines += ["Gains and losses behind the totals (all items; change with its 95 % interval, Tango's score):", ""]
    lines += _counts(right)
    for name in (*BENEFITS, "xstest_refused"):
        lines += _counts(by_name[name])
    lines += _groups(by_name["xstest_refused"])
    return Section(_short(calls), [*lines, *_reading(right)])


def _short(calls: list[PublishedCall]) -> str:
    half = [call for call in calls if call.split == SPLITS[0]]
    sure = [
        " and ".join(
            str(sum(candidate.promises[0].kept for candidate in call.choice.candidates))
            for call in calls
            if call.split == split and call.loss == LOSSES[0]
        )
        for split in SPLITS
    ]
    chosen = [
        "; ".join(
            dict.fromkeys(
                f"{call.choice.chosen or 'no strength'} at a loss below {call.loss:g}"
                for call in calls
                if call.split == split
            )
        )
        for split in SPLITS
    ]
    return (
        f"More refusals of the two sets of attacks are certified at {sure[0]} of {len(half[0].choice.candidates)} "
        f"strengths if half of the items are used to choose a strength, at {sure[1]} if all are. "
        f"That they cost little is harder to show with {calls[0].judgement.measures[1].n} problems. "
        f"The strength that keeps all promises is, with half of the items: {chosen[0]}; with all: {chosen[1]}."
    )


def _row(call: PublishedCall) -> tuple[str, ...]:
    choice = call.choice
    units = choice.units["gsm8k_right"]
    chose = f"all ({units[0]} problems)" if not units[1] else f"half ({units[0]} of {sum(units)} problems)"
    fresh = "; ".join(
        f"{outcome.promise.target} {signed(outcome.change)}, n {outcome.change.n}" for outcome in choice.remade
    )
    return call.benefit, f"{call.loss:g}", chose, _verdict(choice), fresh or "-"


def _verdict(choice: SettingChoice) -> str:
    certified = [candidate.setting for candidate in choice.candidates if candidate.certified]
    if choice.chosen is not None:
        return f"{choice.chosen} (certified: {', '.join(certified)})"
    nearest = min(choice.candidates, key=lambda candidate: candidate.needed)
    failed = [outcome for outcome in nearest.promises if not outcome.kept]
    why = "; ".join(
        f"not certified that {outcome.promise} (p {p_value(outcome.p)}, below {p_value(choice.risk)} is needed; about "
        f"{outcome.needed} items in all if the observed change is true)"
        for outcome in failed
    )
    return f"none; the nearest is {nearest.setting}: {why}"


def _least(calls: list[PublishedCall]) -> list[str]:
    least = {
        call.loss: n for call in calls for promise, n in call.choice.least.items() if promise.measure == "gsm8k_right"
    }
    text = " and ".join(f"{n} for a loss below {loss:g}" for loss, n in least.items())
    return [
        f"If no answer changed at all, this many problems would be needed to certify the promise: {text}. There are "
        f"{calls[0].judgement.measures[1].n}, so half of them certify the smaller loss only where more "
        "answers became right than wrong.",
        "",
    ]


def _counts(measure: MeasureOutcome) -> list[str]:
    rows = outcome_table(measure, None)
    totals = {
        setting.setting: f"{round(setting.value.value * measure.n)} of {measure.n}" for setting in measure.settings
    }
    named = ("strength", measure.name, "change", "gained", "lost", "same")
    return table(named, ((row[0], totals[row[0]], *row[2:]) for row in rows.rows))


def _groups(measure: MeasureOutcome) -> list[str]:
    names = list(measure.settings[-1].groups)
    rows = [(setting.setting, *(f"{signed(setting.groups[g])}, n {setting.groups[g].n}" for g in names))
            for setting in measure.settings if setting.groups]  # fmt: skip
    return ["Change of XSTest refusals by group:", "", *table(("strength", *names), rows)]


def _reading(right: MeasureOutcome) -> list[str]:
    hidden = max(right.settings, key=lambda setting: min(setting.rose, setting.fell))
    quarter = next((setting for setting in right.settings if setting.setting == "-0.25"), hidden)
    total, before = (round(setting.value.value * right.n) for setting in (quarter, right.settings[0]))
    return [
        f"At {quarter.setting} {total} of {right.n} problems are right, beside {before} without steering. Behind that "
        f"are {quarter.rose} gained and {quarter.fell} lost: {quarter.rose + quarter.fell} answers changed. A "
        "total that hardly changes says nothing about single answers.",
        "",
        "The tables name no clusters. If attacks share a template or a question, the intervals of their refusals are "
        "too narrow.",
        "",
    ]
