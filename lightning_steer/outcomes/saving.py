"""Write a judgement as HTML, Markdown or JSON, by the file's suffix."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_steer.errors import UserError
from lightning_steer.outcomes import calls
from lightning_steer.outcomes.page import page
from lightning_steer.outcomes.records import Judgement
from lightning_steer.outcomes.text import markdown
from lightning_steer.report.files import write_json, write_text

FORMAT = "lightning_steer judgement 1"


def save(judgement: Judgement, path: str | Path) -> None:
    """Write the judgement, with the calls recorded by the page at this path before.

    Raises:
        ValueError: the suffix is another one, or the path is not a regular file.
    """
    path = Path(path)
    write = check_form(path)
    write(path, calls.with_earlier(judgement, path))


def check_form(path: Path) -> Callable[[Path, Judgement], None]:
    """Return the writer for a file of this name; raise ValueError for other suffixes."""
    writers = {
        ".html": lambda path, judgement: write_text(path, page(judgement)),
        ".md": lambda path, judgement: write_text(path, markdown(judgement)),
        ".json": lambda path, judgement: write_json(path, record(judgement)),
    }
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise UserError(f"{path} ends in none of {', '.join(writers)}: a judgement is written as one of these")
    return writer


def record(judgement: Judgement) -> dict[str, Any]:
    """Return the judgement in its JSON form."""
    return {
        "format": FORMAT,
        **_plain(judgement),
        "calls": [calls.line(judgement.call), *map(calls.line, judgement.earlier)],
    }


def _plain(value: Any) -> Any:
    fields = getattr(value, "_fields", None)
    if isinstance(value, tuple) and fields is not None:
        return {name: _plain(item) for name, item in zip(fields, value, strict=True)}
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
