"""A judgement as Markdown."""

from lightning_steer.escapes import for_markdown
from lightning_steer.markdown import table
from lightning_steer.outcomes import choice_prose, judge_prose, position_prose, prose
from lightning_steer.outcomes.records import Judgement


def markdown(judgement: Judgement) -> str:
    """Return the judgement as Markdown."""
    first, *more = choice_prose.verdict(judgement)
    more += judge_prose.verdict_sentences(judgement)
    choice = judgement.choice
    lines = ["# Judgement", "", f"**{for_markdown(first)}** {for_markdown(' '.join(more))}".rstrip(), ""]
    if choice is not None:
        lines += ["## Promises", "", *_lines(choice_prose.promise_table(choice)), ""]
        lines += [line for note in choice_prose.promise_notes(choice) for line in (for_markdown(note), "")]
    for measure in judgement.measures:
        lines += [f"## {for_markdown(measure.name)}", "", f"{prose.counted(measure)}.", ""]
        lines += [*_lines(prose.outcome_table(measure, choice and choice.chosen)), ""]
        groups = prose.group_table(measure)
        lines += [] if groups is None else ["Change by group:", "", *_lines(groups), ""]
        lines += [line for text in prose.measure_sentences(measure) for line in (for_markdown(text), "")]
        places = position_prose.position_table(measure)
        lines += [] if places is None else ["Change by the place of the answer:", "", *_lines(places), ""]
        lines += [line for text in position_prose.position_sentences(measure) for line in (for_markdown(text), "")]
    for title, section, texts in judge_prose.sections(judgement):
        lines += [f"## {for_markdown(title)}", "", *_lines(section), ""]
        lines += [line for text in texts for line in (for_markdown(text), "")]
    lines += ["## Notes", ""]
    lines += [f"- {for_markdown(note)}" for note in prose.all_notes(judgement, judge_prose.estimates(judgement))]
    return "\n".join(lines) + "\n"


def _lines(text_table: prose.TextTable) -> list[str]:
    columns, *rows = [[for_markdown(cell) for cell in row] for row in (text_table.columns, *text_table.rows)]
    return table(columns, rows)
