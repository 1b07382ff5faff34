"""Judge outcomes: what changed, what else changed, and which setting is certified to keep the promises."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_steer.errors import UserError
from lightning_steer.outcomes import answers, calls, choosing, describing, judges, pairing, promise_text, reading
from lightning_steer.outcomes.records import (
    JudgeComparison,
    Judgement,
    LabelledMeasure,
    OtherVerdict,
)
from lightning_steer.outcomes.rows import Rows, written
from lightning_steer.outcomes.table import Measure


def judge(
    outcomes: Any,
    benefit: str | Sequence[str] = (),
    harms: str | Sequence[str] | Mapping[str, float] = (),
    *,
    delta: float = 0.05,
    baseline: str | float | None = None,
    cluster: str | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    judge: str | None = None,
    human: str | None = None,
    split: float = 0.5,
    seed: int = 0,
) -> Judgement:
    """Judge outcomes of steering, from any tool.

    Args:
        outcomes: a path to a long table with the columns ``item, setting, measure, value`` (CSV, TSV, JSON lines,
            Parquet), ``MEASURE=path`` for a table without ``measure``, a data frame of pandas, or several of these.
        benefit: what steering is for, such as ``"refused>=0"``; of several all are promised, and the first decides
            among the settings that are certified. Without any, nothing is chosen.
        harms: what it may damage, such as ``{"right falls": .05}`` or ``["right falls<=.05"]``.
        delta: accepted risk that the chosen setting breaks any promise.
        baseline: the setting without steering; strength 0, or the setting called ``baseline``, if not given.
        cluster: the column of clusters, if it is not called ``cluster``.
        ranges: least and largest possible value by measure. A promise needs it, unless values are true and false.
        judge: whose scores to go by where there are several judges; the others are compared with it.
        human: the judge whose labels are right, on a random part of the items: they correct the changes of ``judge``.
        split: share of the items (or clusters) that choose; the others say what the chosen setting does. 1: all choose.
        seed: of the split.

    Raises:
        ValueError: a fault of the table, by row and column, or a setting out of its range.
        FileNotFoundError: there is no such file.
    """
    if not 0 < delta < 1:
        raise UserError(f"delta is a risk between 0 and 1, not {delta}")
    if not 0 < split <= 1:
        raise UserError(f"split is the share of items that choose, above 0 and at most 1, not {split}")
    promises = promise_text.promises(benefit, harms)
    declared = {name: _range(name, *ends) for name, ends in (ranges or {}).items()}
    is_sequence = isinstance(outcomes, Sequence) and not isinstance(outcomes, (str, Path))
    rows, unread = reading.read(list(outcomes) if is_sequence else [outcomes], cluster)
    if isinstance(baseline, bool):
        raise UserError(f"baseline is {baseline}, not a strength or the name of a setting")
    baseline_name = (
        None if baseline is None else written(baseline) if isinstance(baseline, (int, float)) else str(baseline)
    )
    roles = judges.roles(rows, judge, human)
    measures = pairing.measures(rows, baseline_name, declared, roles.judge)
    choice = choosing.choose(measures, promises, delta, split, seed) if promises else None
    first = next(iter(measures.values()))
    numeric = first.settings[0].strength is not None
    notes = _notes(measures, unread, [] if choice is None else [c.setting for c in choice.candidates])
    if roles.judge is not None:
        notes = (f"Values, changes and the choice go by the scores of {roles.judge}, right or wrong.", *notes)
    by_other = {judge_name: pairing.measures(rows, baseline_name, declared, judge_name) for judge_name in roles.others}
    compared, other_verdicts, not_compared = _compare(rows, measures, by_other, roles, promises, (delta, split, seed))
    labelled = _label(rows, measures, baseline_name, declared, roles)
    options = {
        "promises": promises,
        "delta": delta,
        "baseline": baseline_name,
        "cluster": cluster,
        "ranges": sorted(declared.items()),
        "judges": roles,
    }
    masses = {names.mass for names in rows.answers}  # no vector is meant to move them
    described = tuple(describing.describe(measure, name not in masses) for name, measure in measures.items())
    return Judgement(
        tuple(rows.sources),
        len(rows),
        first.settings[0].name,
        numeric,
        split,
        seed,
        described,
        choice,
        compared,
        other_verdicts,
        labelled,
        (*notes, *answers.notes(rows.answers, described), *not_compared),
        calls.call(measures, options, split, seed),
    )


def _compare(
    rows: Rows,
    measures: Mapping[str, Measure],
    by_other: Mapping[str, Mapping[str, Measure]],
    roles: judges.Roles,
    promises: tuple[promise_text.PromiseText, ...],
    settings: tuple[float, float, int],
) -> tuple[tuple[JudgeComparison, ...], tuple[OtherVerdict, ...], tuple[str, ...]]:
    """Return the effects by other judges, their choices, and the judges that cannot be compared."""
    if roles.judge is None:
        return (), (), ()
    compared, verdicts, not_compared = [], [], []
    for other, other_measures in by_other.items():
        shared = judges.scored(rows, roles.judge) & judges.scored(rows, other)
        for name in (name for name in measures if name in shared):
            try:
                compared.append(judges.compare(roles.judge, measures[name], other, other_measures[name]))
            except judges.NothingSharedError:
                not_compared.append(
                    f"{roles.judge} and {other} scored no item of {name} in common: they are not compared."
                )
        if promises and {promise.measure for promise in promises} <= other_measures.keys():
            verdicts.append(OtherVerdict(other, choosing.choose(other_measures, promises, *settings).chosen))
    return tuple(compared), tuple(verdicts), tuple(not_compared)


def _label(
    rows: Rows,
    measures: Mapping[str, Measure],
    baseline: str | None,
    ranges: dict[str, tuple[float, float]],
    roles: judges.Roles,
) -> tuple[LabelledMeasure, ...]:
    """Return the judge's changes, corrected by labels."""
    if roles.judge is None or roles.human is None:
        return ()
    labels = pairing.measures(rows, baseline, ranges, roles.human)
    shared = judges.scored(rows, roles.judge) & judges.scored(rows, roles.human)
    return tuple(
        judges.correct(roles.judge, measures[name], roles.human, labels[name]) for name in measures if name in shared
    )


def _range(name: str, low: float, high: float) -> tuple[float, float]:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"the range of {name!r} is two finite numbers, the smaller first, not {low:g} and {high:g}")
    return float(low), float(high)


def _notes(measures: Mapping[str, Measure], unread: list[str], candidates: list[str]) -> tuple[str, ...]:
    notes = []
    if unread:
        notes.append(f"Columns that were not read: {', '.join(unread)}.")
    unclustered = [measure.name for measure in measures.values() if measure.cluster is None]
    if unclustered:
        notes.append(
            f"No clusters are named for {', '.join(unclustered)}: items count as independent draws. If several share a "
            "topic, a template or a source, name it in a column `cluster`, or every interval is too narrow."
        )
    assumed = [measure.name for measure in measures.values() if measure.share and not measure.declared]
    if assumed:
        notes.append(
            f"All values of {', '.join(assumed)} are 0 or 1: intervals and the shape of the dose-response assume that "
            "no other value can occur. For a promise declare it with --range MEASURE=0..1."
        )
    open_ended = [measure.name for measure in measures.values() if not math.isfinite(measure.high - measure.low)]
    if open_ended:
        notes.append(
            f"No range is declared for {', '.join(open_ended)}: nothing can be promised about it, and the shape of its "
            "dose-response is not tested. Declare it with --range MEASURE=LOW..HIGH."
        )
    all_settings = list(dict.fromkeys(s.name for measure in measures.values() for s in measure.settings[1:]))
    excluded = [name for name in all_settings if candidates and name not in candidates]
    if excluded:
        notes.append(f"Not among the candidates, as some promised measure has no rows of them: {', '.join(excluded)}.")
    return tuple(notes)
