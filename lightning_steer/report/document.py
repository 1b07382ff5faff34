"""HTML pages from templates: self-contained, without scripts, fonts or other network resources."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from markupsafe import Markup

PACKAGE = Path(__file__).parents[1]


class Drawing(NamedTuple):
    """A chart with what stands around it."""

    title: str
    chart: "Markup"
    notes: Sequence[str]
    key: Sequence[tuple[str, str, str]] = ()
    """Label, colour and dashes of each line."""


def render(template: str, **values: Any) -> str:
    """Return a page, or a piece of one, in which every text that is shown is escaped.

    Args:
        template: path below the package; a whole page extends ``report/document.html``.
        values: what the template shows: texts, and charts of :mod:`lightning_steer.report.svg`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # few commands write a page

    environment = Environment(
        loader=FileSystemLoader(PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)
