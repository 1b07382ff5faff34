"""MkDocs hook: what docstrings call :func:`name` is shown as code; Markdown knows no roles."""

import re
from typing import Any

ROLE = re.compile(r":(?:attr|class|func|meth|mod):<code>[~.]?([^<]*)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """The page without the names of roles."""
    return ROLE.sub(r"<code>\1</code>", html)
