"""Several judges, in sentences and tables."""

from typing import Any

from lightning_steer.outcomes.prose import TextTable, signed
from lightning_steer.outcomes.records import JudgeComparison, Judgement, LabelledMeasure
from lightning_steer.statistics.prediction_powered import FEWEST, FEWEST_CHANGES


def comparison_table(comparison: JudgeComparison) -> TextTable:
    """Return the table of the effect by two judges."""
    scores = f"change by {comparison.judge}", f"by {comparison.other}"
    columns = ("setting", *scores, "difference", "same score", "changed alike")
    rows = [
        (
            s.setting,
            signed(s.change),
            signed(s.other),
            signed(s.difference),
            f"{s.same_score:.3f}",
            "none changed" if s.changed_alike is None else f"{s.changed_alike:.3f}",
        )
        for s in comparison.settings
    ]
    return TextTable(columns, tuple(rows))


def comparison_sentences(comparison: JudgeComparison) -> list[str]:
    """Return sentences on where two judges disagree about the effect."""
    apart = [s.setting for s in comparison.settings if s.difference.low > 0 or s.difference.high < 0]
    verdict = (
        f"On the effect at {', '.join(apart)} the judges disagree: the interval of the difference leaves out 0."
        if apart
        else "No difference between the judges on the effect is certain."
    )
    return [
        f"{comparison.n:,} items that both scored. {verdict}",
        "Same score: share of items with the same score at this setting. Changed alike: of the items that changed by "
        "either judge, the share that changed the same by both. Judges may agree on most scores and not on the effect.",
    ]


def verdict_sentences(judgement: Judgement) -> list[str]:
    """Return sentences on which judge would change the verdict."""
    choice = judgement.choice
    if choice is None:
        return []
    sentences = []
    for other in judgement.other_verdicts:
        alternative = (
            "no setting would be certified" if other.chosen is None else f"setting {other.chosen} would be chosen"
        )
        outcome = "be the same" if other.chosen == choice.chosen else f"turn: {alternative}"
        sentences.append(f"If the scores of {other.judge} counted, the verdict would {outcome}.")
    return sentences


def label_table(measure: LabelledMeasure) -> TextTable:
    """Return the table of each change by the judge, by labels alone, and corrected."""
    columns = ("setting", f"change by {measure.judge}", f"by {measure.human} alone", "corrected", "weight of the judge")
    rows = [
        (s.setting, signed(s.judged), signed(s.labels), signed(s.corrected), f"{s.weight:.2f}")
        for s in measure.settings
    ]
    return TextTable(columns, tuple(rows))


def label_sentences(measure: LabelledMeasure) -> list[str]:
    """Return sentences on what a corrected change assumes."""
    return [
        f"{measure.labelled:,} of {measure.n:,} items are labelled by {measure.human}. The corrected change is "
        f"unbiased whatever {measure.judge} does, if the labelled items are a random sample of all.",
        "Rows come in clusters, for which no corrected interval is known to hold: the labels count alone."
        if measure.clustered
        else f"Prediction-powered inference (PPI++). With fewer than {FEWEST} labels, or fewer than {FEWEST_CHANGES} "
        "labelled items that changed, the labels count alone (weight 0).",
    ]


def estimates(judgement: Judgement) -> list[dict[str, Any]]:
    """Return the estimates of all comparisons by name, for the notes on how intervals were computed."""
    rows = [
        {
            f"change of {entry.measure} by {entry.other}": s.other._asdict(),
            "difference of judges": s.difference._asdict(),
        }
        for entry in judgement.judges
        for s in entry.settings
    ]
    return rows + [
        {f"{entry.measure} by {entry.human}": s.labels._asdict(), f"{entry.measure} corrected": s.corrected._asdict()}
        for entry in judgement.labelled
        for s in entry.settings
    ]


def sections(judgement: Judgement) -> list[tuple[str, TextTable, list[str]]]:
    """Return the title, table and sentences of every comparison, and of every measure that is labelled."""
    compared = [
        (f"{entry.measure}: {entry.judge} and {entry.other}", comparison_table(entry), comparison_sentences(entry))
        for entry in judgement.judges
    ]
    labelled = [
        (f"{entry.measure}, corrected by the labels of {entry.human}", label_table(entry), label_sentences(entry))
        for entry in judgement.labelled
    ]
    return [*compared, *labelled]
