"""``predict --vector FILE``: model, layers, tokens, method and strength are those of a vector file, said once."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_steer.errors import UserError
from lightning_steer.resources import resource_path
from lightning_steer.vectors import SteeringVector, load
from lightning_steer.vectors.imported import ImportedVector
from lightning_steer.vectors.steer import positions_of

OPTION = "--vector"


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with what a vector file says, before the options of the user, which count more.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not readable, or does not say what model it is of.
    """
    words = list(arguments)
    for i, word in enumerate(words):
        name, _, value = word.partition("=")
        if name == OPTION and words[:1] == ["predict"]:
            value_given = value or (words[i + 1] if i + 1 < len(words) else "")
            path = resource_path(value_given)
            return [words[0], *_options(Path(path), load(path)), *words[1:]]
    return words


def _options(path: Path, vector: SteeringVector) -> list[str]:
    card = vector.card
    if card.model is None or any(site.layer is None for site in card.sites):
        raise UserError(f"{path} does not say which language model it is of: name it with `export ... --llm NAME`")
    if card.method == ImportedVector.__name__:
        raise UserError(f"{path} is of another tool: name model and layer, and give it as model.steering")
    rule = positions_of(card)
    steered = {"class_path": type(rule).__name__, "init_args": vars(rule)}
    llm = {
        "llm": card.model.name,
        "layers": [site.layer for site in card.sites],
        "part": card.sites[0].part,
        "positions": steered if vars(rule) else type(rule).__name__,
        **({"chat": True} if card.chat else {}),
    }
    model = {
        "backbone": {"class_path": "LLM", "init_args": llm},
        "steering": str(path),
        "method": _class(card.method, card.settings),
        "strengths": [card.strength.value],
    }
    return [
        *("--experiment=responses", f"--run={path.stem}"),
        f"--model={json.dumps({'class_path': 'Responses', 'init_args': model})}",
        "--data=PromptsDataModule",
    ]


def _class(name: str, settings: Mapping[str, Any]) -> Any:
    """Return a method as options name it, and so the methods inside it."""
    arguments = {key: _option(value) for key, value in settings.items()}
    return {"class_path": name, "init_args": arguments} if arguments else name


def _option(value: Any) -> Any:
    if isinstance(value, list):
        return [_option(part) for part in value]
    if isinstance(value, dict) and value.keys() == {"name", "settings"}:
        return _class(value["name"], value["settings"])
    return value
