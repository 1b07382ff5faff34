"""Several judges, in sentences and tables."""

from typing import Any

from lightning_steer.outcomes.prose import TextTable, signed
from lightning_steer.outcomes.records import JudgeComparison, Judgement, LabelledMeasure
from lightning_steer.statistics.prediction_powered import FEWEST, FEWEST_CHANGES


def comparison_table(one: JudgeComparison) -> TextTable:
    """Return the effect as two judges see it."""
    columns = ("setting", f"change by {one.judge}", f"by {one.other}", "difference", "same score", "changed alike")
    rows = [
        (
            s.setting,
            signed(s.change),
            signed(s.other),
            signed(s.difference),
            f"{s.same_score:.3f}",
            "none changed" if s.changed_alike is None else f"{s.changed_alike:.3f}",
        )
        for s in one.settings
    ]
    return TextTable(columns, tuple(rows))


def comparison_sentences(one: JudgeComparison) -> list[str]:
    """Return where two judges disagree on the effect."""
    apart = [s.setting for s in one.settings if s.difference.low > 0 or s.difference.high < 0]
    verdict = (
        f"On the effect at {', '.join(apart)} the judges disagree: the interval of the difference leaves out 0."
        if apart
        else "No difference between the judges on the effect is certain."
    )
    return [
        f"{one.n:,} items that both scored. {verdict}",
        "Same score: share of items with the same score at this setting. Changed alike: of the items that changed by "
        "either judge, the share that changed the same by both. Judges may agree on most scores and not on the effect.",
    ]


def verdict_sentences(judgement: Judgement) -> list[str]:
    """Return which judge would turn the verdict."""
    choice = judgement.choice
    if choice is None:
        return []
    sentences = []
    for one in judgement.other_verdicts:
        turned = "no setting would be certified" if one.chosen is None else f"setting {one.chosen} would be chosen"
        outcome = "be the same" if one.chosen == choice.chosen else f"turn: {turned}"
        sentences.append(f"If the scores of {one.judge} counted, the verdict would {outcome}.")
    return sentences


def label_table(one: LabelledMeasure) -> TextTable:
    """Return each change by the judge, by labels alone, and corrected."""
    columns = ("setting", f"change by {one.judge}", f"by {one.human} alone", "corrected", "weight of the judge")
    rows = [
        (s.setting, signed(s.judged), signed(s.labels), signed(s.corrected), f"{s.weight:.2f}") for s in one.settings
    ]
    return TextTable(columns, tuple(rows))


def label_sentences(one: LabelledMeasure) -> list[str]:
    """Return what a corrected change rests on."""
    return [
        f"{one.labelled:,} of {one.n:,} items are labelled by {one.human}. The corrected change is unbiased whatever "
        f"{one.judge} does, if the labelled items are a random sample of all.",
        "Rows come in clusters, for which no corrected interval is known to hold: the labels count alone."
        if one.clustered
        else f"Prediction-powered inference (PPI++). With fewer than {FEWEST} labels, or fewer than {FEWEST_CHANGES} "
        "labelled items that changed, the labels count alone (weight 0).",
    ]


def estimates(judgement: Judgement) -> list[dict[str, Any]]:
    """Return the estimates of all comparisons by name, for the notes on how intervals were made."""
    rows = [
        {f"change of {one.measure} by {one.other}": s.other._asdict(), "difference of judges": s.difference._asdict()}
        for one in judgement.judges
        for s in one.settings
    ]
    return rows + [
        {f"{one.measure} by {one.human}": s.labels._asdict(), f"{one.measure} corrected": s.corrected._asdict()}
        for one in judgement.labelled
        for s in one.settings
    ]


def sections(judgement: Judgement) -> list[tuple[str, TextTable, list[str]]]:
    """Return the title, table and sentences of every comparison, and of every measure that is labelled."""
    compared = [
        (f"{one.measure}: {one.judge} and {one.other}", comparison_table(one), comparison_sentences(one))
        for one in judgement.judges
    ]
    labelled = [
        (f"{one.measure}, corrected by the labels of {one.human}", label_table(one), label_sentences(one))
        for one in judgement.labelled
    ]
    return [*compared, *labelled]
