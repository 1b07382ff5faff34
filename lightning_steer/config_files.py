"""Configuration files named on the command line: shipped ones are found by name, and all are seen to be usable.

What is written in them, or given as a value, is read as YAML 1.2 means it: 010 is 10 and not 8, 1:30 and 1_000 are no
numbers, and yes, no, on and off are words (an option that is true or false takes them too). YAML 1.1 would read 8, 90,
1000, True and False, also where a class label or a name is meant.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import jsonargparse
import yaml
from jsonargparse import _loaders_dumpers

from lightning_steer import text_files
from lightning_steer.errors import UserError
from lightning_steer.resources import resource_path


def with_packaged(arguments: list[str]) -> list[str]:
    """``--config`` may name a file that came with the package."""
    resolved = list(arguments)
    for i, argument in enumerate(resolved):
        if argument.startswith("--config="):
            resolved[i] = f"--config={_readable(argument.removeprefix('--config='))}"
        elif i and resolved[i - 1] in ("--config", "-c"):
            resolved[i] = _readable(argument)
    return resolved


def _readable(name: str) -> str:
    """The file of this name, if it is text; a configuration may also be given as text itself."""
    path = resource_path(name)
    if Path(path).is_file():
        try:
            config = yaml.compose(text_files.read(path), _Loader)
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not readable YAML ({' '.join(str(error).split())})") from None
        if not isinstance(config, yaml.MappingNode):
            raise UserError(f"{path} holds no configuration: expected settings as `key: value`")
        _check_keys(config, path, set())
    return path


_WHOLE = "(?:0|[1-9][0-9]*)"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads plain words as YAML 1.2 does."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}


for _tag, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", rf"[-+]?{_WHOLE}|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", rf"[-+]?(?:\.[0-9]+|{_WHOLE}\.[0-9]*|{_WHOLE}(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", "<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def load(text: str) -> Any:
    """Return what a text of YAML holds; raises yaml.YAMLError, or ValueError for a key that is set twice.

    A text such as ``{label}`` stays a text: it is a template rather than a set of keys.
    """
    node = yaml.compose(text, _Loader)
    if node is not None:
        _check_keys(node, repr(text[:60]), set())
    value = _Loader(text).get_single_data()
    if isinstance(value, dict) and value and all(entry is None for entry in value.values()):
        names = text.strip(" {}").replace(" ", "").split(",")
        if set(names) == value.keys() or text.strip() == f"{next(iter(value))}:":
            return text
    return value


def read_as_meant() -> None:
    """Let the parser read all YAML with :func:`load`, and words that stand for numbers likewise."""
    jsonargparse.set_loader("yaml", load, (yaml.YAMLError,))
    _loaders_dumpers.yaml_default_loader = _Loader  # a string for a number is read with this one, and with no other


def _check_keys(node: yaml.Node, path: str, seen: set[int]) -> None:
    """Raise ValueError if a mapping sets a key twice, of which YAML would silently take the last."""
    if id(node) in seen:  # an alias may stand in many places
        return
    seen.add(id(node))
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    keys = [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
    for key, value in pairs:
        if isinstance(key, yaml.ScalarNode) and not key.tag.endswith((":str", ":merge")) and value.value != "":
            raise UserError(
                f"{path} has the key {key.value} near line {key.start_mark.line + 1}, and keys are strings: write it "
                "in quotes"
            )
    repeated = [key for key in keys if keys.count(key) > 1]
    if any("." in key for key in keys):
        leaves = list(_leaves(node, ""))
        repeated += [leaf for leaf in leaves if sum(f"{other}.".startswith(f"{leaf}.") for other in leaves) > 1]
    for key in repeated:
        raise UserError(f"{path} sets {key} twice, near line {node.start_mark.line + 1}: keep one of them")
    children = [value for _, value in pairs] if pairs else node.value
    for child in children if isinstance(children, list) else []:
        if isinstance(child, yaml.Node):
            _check_keys(child, path, seen)


def _leaves(node: yaml.Node, path: str) -> Iterator[str]:
    """The dotted path of every value in nested mappings."""
    if isinstance(node, yaml.MappingNode) and node.value:
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield from _leaves(value, f"{path}.{key.value}" if path else key.value)
    else:
        yield path
