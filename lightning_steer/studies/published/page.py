"""The page about published outcomes."""

from pathlib import Path

from lightning_steer.studies.published import alphasteer, caa, caa_dynamic_page, refusal_direction_page

HEAD = """# What published outcomes of steering support

Four projects released what their steering did. This page judges tables of these outcomes with the statistics of this
library: what was claimed, and what the released items support, with n and intervals. The tables of three projects
hold single items, that of CAA holds only means. No model was run. Nothing here says that a claim is false in general;
it says what these items can show.

The page is written by `python -m lightning_steer.studies.published --data FOLDER`; `--page FILE` writes it elsewhere.
The tables hold verdicts, probabilities, scores and letters, no texts, and do not ship. `python -m
lightning_steer.studies.published.clones CLONES OUTCOMES` makes such tables from clones of the four repositories. The
tables of AlphaSteer and CAA that this page judges are older than that command: its phrases of refusal may differ from
those used for them. *Certified*, *certain* and *certainly* mean shown at confidence
.95, with a correction for the number of comparisons.
[Judge any steering](judge.md) explains the terms.
"""


def text(outcomes: Path) -> str:
    """Return the page as Markdown; raises FileNotFoundError or ValueError for tables that are missing or wrong."""
    sections = {
        "AlphaSteer": alphasteer.section(outcomes),
        "CAA_Dynamic": caa_dynamic_page.section(outcomes),
        "CAA": caa.section(outcomes),
        "refusal_direction": refusal_direction_page.section(outcomes),
    }
    lines = [HEAD, *(f"- **{name}.** {section.short}" for name, section in sections.items()), ""]
    lines += [line for section in sections.values() for line in section.lines]
    return "\n".join(lines).rstrip() + "\n"
