"""A judgement as one self-contained HTML page: no scripts, fonts or requests."""

from lightning_steer.outcomes import choice_prose, judge_prose, position_prose, prose
from lightning_steer.outcomes.records import Judgement, MeasureOutcome
from lightning_steer.outcomes.rows import written
from lightning_steer.report import svg
from lightning_steer.report.document import Drawing, render


def page(judgement: Judgement) -> str:
    """Return the page."""
    first, *sentences = choice_prose.verdict(judgement)
    return render(
        "outcomes/judgement.html",
        title=f"Judgement: {first}",
        first=first,
        sentences=sentences + judge_prose.verdict_sentences(judgement),
        judgement=judgement,
        drawing=_drawing,
        choice_prose=choice_prose,
        judge_prose=judge_prose,
        position_prose=position_prose,
        prose=prose,
    )


def _drawing(measure: MeasureOutcome, chosen: str | None) -> Drawing | None:
    points = sorted((outcome.strength, outcome) for outcome in measure.settings if outcome.strength is not None)
    if len(points) < 2:
        return None
    x = [strength for strength, _ in points]
    curve = {key: [getattr(outcome.value, key) for _, outcome in points] for key in svg.KEYS}
    mark = next((strength for strength, outcome in points if outcome.setting == chosen), None)
    label = "share" if measure.share else "mean"
    chart = svg.lines(x, {measure.name: curve}, svg.COLOURS, mark, ("strength", label))
    notes = [] if mark is None else [f"Dotted: the certified setting, {written(mark)}."]
    return Drawing("Dose-response, with 95 % bands", chart, notes)
