"""The log of draws opened for a verdict: each is opened once, under one declaration."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning_steer.files import is_regular, write
from lightning_steer.studies.declaration import Declaration


def open_once(log: Path, declaration: Declaration, draws: str, command: Sequence[str]) -> list[dict[str, Any]]:
    """Log that draws are opened for the verdict, and return all openings; the same declaration may open them again.

    Raises:
        ValueError: the draws were opened under another declaration, so it is too late to declare a new one.
    """
    lines = log.read_text().split("\n") if is_regular(log) else []
    openings = [json.loads(line) for line in lines if line]
    digest = declaration.digest()
    for opening in openings:
        if opening["draws"] == draws and opening["declaration"] != digest:
            raise ValueError(f"{log}: '{draws}' were opened under declaration {opening['declaration']}, not {digest}: "
                             "keep that declaration, or declare other draws")  # fmt: skip
    if not any(opening["draws"] == draws for opening in openings):
        time = datetime.now(UTC).isoformat(timespec="seconds")
        openings.append({"draws": draws, "declaration": digest, "opened": time, "command": list(command)})
        write(log, "".join(json.dumps(opening) + "\n" for opening in openings).encode())
    return openings
