"""Translate cards of format 1 (version 0.1) to current names."""

import warnings
from typing import Any

from lightning_steer.report.old_names import METRICS

OLD_FORMAT = 1
POSITIONS = {
    "All": "AllTokens",
    "Prompt": "PromptTokens",
    "Last": "LastPromptToken",
    "Generated": "GeneratedTokens",
    "From": "TokensFrom",
}
METHODS = {"Given": "ImportedVector"}


def renamed(card: dict[str, Any]) -> dict[str, Any]:
    """Return a card of format 1 with current names; warn that the file should be saved again."""
    warnings.warn(
        "the vector file was written by version 0.1: it is read with today's names; save it again to renew it",
        UserWarning,
        stacklevel=2,
    )
    entries = {("positions" if name == "scope" else name): value for name, value in card.items()}
    positions, method = entries.get("positions"), entries.get("method")
    if isinstance(positions, dict) and isinstance(positions.get("name"), str):
        entries["positions"] = {**positions, "name": POSITIONS.get(positions["name"], positions["name"])}
    for group in ("effect", "drift"):
        if isinstance(entries.get(group), dict):
            entries[group] = {METRICS.get(name, name): figure for name, figure in entries[group].items()}
    if isinstance(method, str):
        entries["method"] = METHODS.get(method, method)
    return entries
