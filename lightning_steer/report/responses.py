"""Responses side by side: each model at each strength, prompt by prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_steer.escapes import for_markdown
from lightning_steer.markdown import table


def side_by_side(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table for each prompt and system prompt."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["id"], line["prompt"], line["system"]), []).append(line)
    page = ["# Responses side by side\n"]
    for (id_, prompt, system), group in groups.items():
        page.append(f"## Prompt {for_markdown(id_)}\n\n> {_quoted(prompt)}\n")
        if system is not None:
            page.append(f"System: {_quoted(system)}\n")
        rows = [[_cell(line["model"]), _strength(line["strength"]), _cell(line["response"])] for line in group]
        page += [*table(("model", "strength", "response"), rows), ""]
    return "\n".join(page)


def _quoted(text: str) -> str:
    return for_markdown(text, "\n> ")


def _strength(strength: float | None) -> str:
    return "unsteered" if strength is None else f"{strength:g}"


def _cell(text: str) -> str:
    return for_markdown(text, "<br>")
