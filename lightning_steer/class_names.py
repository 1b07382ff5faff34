"""The classes that a setting takes, by name: for the sentence that refuses any other."""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any, get_args, get_type_hints

PACKAGE = __name__.partition(".")[0]


def by_setting(classes: Iterable[type]) -> dict[str, list[str]]:
    """Return the names of the classes that arguments of constructors take, by the argument's name.

    Args:
        classes: whose constructors are read; the classes that these take are read in turn.
    """
    names: dict[str, set[str]] = {}
    todo, done = list(classes), set[type]()
    while todo:
        current = todo.pop()
        if current in done:
            continue
        done.add(current)
        for argument, hint in get_type_hints(inspect.unwrap(current.__init__)).items():
            taken = [concrete for base in _classes_in(hint) for concrete in _concrete(base)]
            todo += taken
            if taken:
                names.setdefault(argument, set()).update(kind.__name__ for kind in taken)
    return {argument: sorted(known) for argument, known in names.items()}


def _classes_in(hint: Any) -> Iterator[type]:
    """This project's classes in an annotation such as ``Positions | None``."""
    if inspect.isclass(hint) and hint.__module__.startswith(f"{PACKAGE}."):
        yield hint
    for part in get_args(hint):
        yield from _classes_in(part) if not isinstance(part, list) else ()


def _concrete(base: type) -> Iterator[type]:
    """The class and those derived from it, without abstract ones and other people's."""
    if not inspect.isabstract(base) and base.__module__.startswith(f"{PACKAGE}."):
        yield base
    for derived in base.__subclasses__():
        yield from _concrete(derived)
