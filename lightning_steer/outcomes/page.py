"""A judgement as one self-contained HTML page: no scripts, fonts or requests."""

from html import escape

from lightning_steer.outcomes import choice_prose, judge_prose, position_prose, prose
from lightning_steer.outcomes.records import Judgement, MeasureOutcome
from lightning_steer.outcomes.rows import written
from lightning_steer.report import svg
from lightning_steer.report.document import document


def page(judgement: Judgement) -> str:
    """Return the page."""
    first, *sentences = choice_prose.verdict(judgement)
    sentences += judge_prose.verdict_sentences(judgement)
    choice = judgement.choice
    parts = [
        f"<header><h1>Judgement: {escape(', '.join(measure.name for measure in judgement.measures))}</h1>\n",
        f'<p class="verdict"><strong>{escape(first)}</strong></p>\n{_paragraphs(sentences)}</header>\n<main>\n',
    ]
    if choice is not None:
        parts.append(f"<h2>Promises</h2>\n{_table(choice_prose.promise_table(choice))}")
        parts.append(_paragraphs(choice_prose.promise_notes(choice), "soft"))
    parts += [_article(measure, choice and choice.chosen) for measure in judgement.measures]
    for title, table, texts in judge_prose.sections(judgement):
        parts.append(f"<article>\n<h2>{escape(title)}</h2>\n{_table(table)}{_paragraphs(texts)}</article>\n")
    notes = "".join(f"<li>{escape(note)}</li>" for note in prose.all_notes(judgement, judge_prose.estimates(judgement)))
    parts.append(f'<article>\n<h2>Notes</h2>\n<ul class="soft">{notes}</ul>\n</article>\n</main>\n')
    return document(f"Judgement: {first}", "".join(parts))


def _article(measure: MeasureOutcome, chosen: str | None) -> str:
    groups, places = prose.group_table(measure), position_prose.position_table(measure)
    return (
        f'<article>\n<h2>{escape(measure.name)}</h2>\n<p class="soft">{escape(prose.counted(measure))}.</p>\n'
        f"{_paragraphs(prose.measure_sentences(measure))}{_chart(measure, chosen)}"
        f"{_table(prose.outcome_table(measure, chosen))}"
        + ("" if groups is None else f"<h3>Change by group</h3>\n{_table(groups)}")
        + ("" if places is None else f"<h3>Change by the place of the answer</h3>\n{_table(places)}")
        + _paragraphs(position_prose.position_sentences(measure))
        + "</article>\n"
    )


def _chart(measure: MeasureOutcome, chosen: str | None) -> str:
    points = sorted((outcome.strength, outcome) for outcome in measure.settings if outcome.strength is not None)
    if len(points) < 2:
        return ""
    x = [strength for strength, _ in points]
    curve = {key: [getattr(outcome.value, key) for _, outcome in points] for key in svg.KEYS}
    mark = next((strength for strength, outcome in points if outcome.setting == chosen), None)
    label = "share" if measure.share else "mean"
    chart = svg.lines(x, {measure.name: curve}, svg.COLOURS, mark, ("strength", label))
    dotted = "" if mark is None else f'<p class="soft">Dotted: the certified setting, {written(mark)}.</p>'
    return f"<figure><figcaption>Dose-response, with 95 % bands</figcaption>{chart}{dotted}</figure>\n"


def _table(table: prose.TextTable) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    body = "".join(
        f'<tr{" class=own" if name == table.own else ""}><th scope="row">{escape(name)}</th>'
        + "".join(
            f'<td data-name="{escape(column)}"><span>{escape(cell)}</span></td>'
            for column, cell in zip(table.columns[1:], cells, strict=True)
        )
        + "</tr>"
        for name, *cells in table.rows
    )
    content = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table class="compared texts">{content}</table></div>\n'


def _paragraphs(texts: list[str], kind: str = "") -> str:
    start = f'<p class="{kind}">' if kind else "<p>"
    return "".join(f"{start}{escape(text)}</p>\n" for text in texts)
