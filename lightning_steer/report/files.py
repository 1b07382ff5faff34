"""Write text, JSON and figures atomically."""

import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_steer.files import write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` atomically; raise ValueError or OSError naming the path."""
    write(path, text.encode())


def write_figure(figure: "Figure", folder: Path, name: str, dpi: int = 120) -> None:
    """Write a figure as ``NAME.png`` and ``NAME.svg``; the same figure always gives the same bytes."""
    import matplotlib as mpl

    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": name}):  # otherwise identifiers are random
            figure.savefig(buffer, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
        write(folder / f"{name}.{kind}", buffer.getvalue())


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by standard JSON: numbers that are not finite become null."""
    write_text(path, json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Return the same value with null for numbers that are not finite, and lists for tuples."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
