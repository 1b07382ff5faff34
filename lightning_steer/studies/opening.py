"""The log of draws that were opened for a verdict: each once, under one declaration."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning_steer.files import is_regular, write
from lightning_steer.studies.declaration import Declaration


def open_once(log: Path, declaration: Declaration, draws: str, command: Sequence[str]) -> list[dict[str, Any]]:
    """Log that draws are opened for the verdict, and return all openings; the same declaration may go on.

    Raises:
        ValueError: the draws were opened under another declaration: whoever has seen them cannot declare any more.
    """
    lines = log.read_text().split("\n") if is_regular(log) else []
    openings = [json.loads(line) for line in lines if line]
    digest = declaration.digest()
    for one in openings:
        if one["draws"] == draws and one["declaration"] != digest:
            raise ValueError(f"{log}: '{draws}' were opened under declaration {one['declaration']}, not {digest}: "
                             "keep that declaration, or declare other draws")  # fmt: skip
    if not any(one["draws"] == draws for one in openings):
        when = datetime.now(UTC).isoformat(timespec="seconds")
        openings.append({"draws": draws, "declaration": digest, "opened": when, "command": list(command)})
        write(log, "".join(json.dumps(one) + "\n" for one in openings).encode())
    return openings
