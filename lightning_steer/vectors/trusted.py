"""Check what a run's ``fit.yaml`` names: only the classes of this project that a run consists of are allowed.

Names are compared as text before anything is imported. A class's arguments are compared with its signature: where a
class is expected, only a listed class with its settings is allowed, never the name of a function or a file.
"""

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import lightning as L

from lightning_steer.errors import UserError
from lightning_steer.lm import language_model  # noqa: F401  # defines classes that may be named
from lightning_steer.methods.base import SteeringMethod
from lightning_steer.networks.backbone import Backbone

PROJECT = "lightning_steer"
OTHERS = "**"
"""Stands for the arguments that a class passes on; none of them is a text."""
PLAIN = (str, int, float, bool, bytes, type(None), list, dict, tuple, set)


def classes() -> dict[str, type]:
    """Return the classes that a run may consist of, by every path under which they can be named."""
    by_path: dict[str, type] = {}
    pending: list[type] = [Backbone, SteeringMethod, L.LightningDataModule]
    seen: set[type] = set()
    while pending:
        kind = pending.pop()
        if kind in seen:
            continue
        seen.add(kind)
        pending += kind.__subclasses__()
        if kind.__module__.partition(".")[0] != PROJECT:
            continue
        packages = kind.__module__.split(".")
        paths = [".".join(packages[:depth]) for depth in range(1, len(packages) + 1)]
        by_path |= {f"{path}.{kind.__name__}": kind for path in paths} | {kind.__name__: kind}
        pending += [part for hint in _hints(kind).values() for part in _parts(hint) if isinstance(part, type)]
    return by_path


def check(config: Any, where: str) -> None:
    """Raise ValueError unless a configuration names only listed classes.

    Args:
        config: ``{"class_path": ..., "init_args": {...}}``.
        where: its key, for the message.
    """
    if not isinstance(config, Mapping) or "class_path" not in config:
        raise UserError(f"{where} is {str(config)[:60]!r}, not a class_path with its init_args")
    _check(config, False, where, classes())


def _check(value: Any, plain: bool, where: str, known: Mapping[str, type]) -> None:
    if isinstance(value, str) and not plain:
        raise UserError(f"{where} is {value[:60]!r}: a class is named by its class_path, with its init_args")
    if isinstance(value, (list, tuple)):
        for item in value:
            _check(item, plain, where, known)
    if not isinstance(value, Mapping):
        return
    if "class_path" not in value:
        for key, item in value.items():
            _check(item, plain, f"{where}.{key}", known)
        return
    path, settings = value["class_path"], value.get("init_args") or {}
    if not isinstance(path, str) or path not in known:
        raise UserError(
            f"{where} names the class {str(path)[:80]!r}, and only classes of {PROJECT} are made from a run's "
            "fit.yaml: nothing was imported"
        )
    hints = _hints(known[path])
    unexpected = [str(key) for key in value if key not in ("class_path", "init_args")]
    unexpected += [] if isinstance(settings, Mapping) else ["init_args"]
    unexpected += [str(key) for key in settings if key not in hints and (OTHERS not in hints or "." in str(key))]
    if unexpected:
        raise UserError(f"{where} has {unexpected[0][:60]!r}, which {path} does not take")
    for key, item in settings.items():
        _check(item, key in hints and _is_plain(hints[key]), f"{where}.{key}", known)


def _hints(kind: type) -> dict[str, Any]:
    """Return the types of a class's arguments, including those that it passes on to its parents."""
    hints_by_name: dict[str, Any] = {}
    for parent in reversed(kind.__mro__):
        init = vars(parent).get("__init__")
        if isinstance(init, types.FunctionType) and parent.__module__.partition(".")[0] == PROJECT:
            hints = typing.get_type_hints(init)
            for name, parameter in list(inspect.signature(init).parameters.items())[1:]:
                is_variadic = parameter.kind is inspect.Parameter.VAR_KEYWORD
                hints_by_name[OTHERS if is_variadic else name] = hints.get(name, Any)
    return hints_by_name


def _parts(hint: Any) -> Iterator[Any]:
    """Yield all types inside a type."""
    if isinstance(hint, list):
        for part in hint:
            yield from _parts(part)
    elif typing.get_origin(hint) is typing.Literal:
        yield str
    elif typing.get_args(hint):
        yield typing.get_origin(hint)
        for part in typing.get_args(hint):
            yield from _parts(part)
    else:
        yield hint


def _is_plain(hint: Any) -> bool:
    """Return whether the type allows no class and no function, so that a text is just a text."""
    containers = (Mapping, typing.Union, types.UnionType, *PLAIN)
    return all(part in containers or _is_sequence(part) for part in _parts(hint))


def _is_sequence(part: Any) -> bool:
    return part is not Callable and getattr(part, "__module__", "") in ("collections.abc", "pathlib")
