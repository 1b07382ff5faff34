"""Configuration files named on the command line: shipped ones are found by name, and all are seen to be usable."""

from pathlib import Path

import yaml

from lightning_steer import text_files
from lightning_steer.shipped import shipped


def with_shipped(arguments: list[str]) -> list[str]:
    """``--config`` may name a file that came with the package."""
    found = list(arguments)
    for i, argument in enumerate(found):
        if argument.startswith("--config="):
            found[i] = f"--config={_readable(argument.removeprefix('--config='))}"
        elif i and found[i - 1] in ("--config", "-c"):
            found[i] = _readable(argument)
    return found


def _readable(name: str) -> str:
    """The file of this name, if it is text; a configuration may also be given as text itself."""
    path = shipped(name)
    if Path(path).is_file():
        try:
            config = yaml.compose(text_files.read(path), yaml.SafeLoader)
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not readable YAML ({' '.join(str(error).split())})") from None
        if not isinstance(config, yaml.MappingNode):
            raise ValueError(f"{path} holds no configuration: expected settings as `key: value`")
        _check_keys(config, path, set())
    return path


def _check_keys(node: yaml.Node, path: str, seen: set[int]) -> None:
    """Raise ValueError if a mapping names a key twice, of which YAML would silently take the last."""
    if id(node) in seen:  # an alias may stand in many places
        return
    seen.add(id(node))
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    keys = [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"{path} sets {key} twice, near line {node.start_mark.line + 1}: keep one of them")
    parts = [value for _, value in pairs] if pairs else node.value
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, yaml.Node):
            _check_keys(part, path, seen)
