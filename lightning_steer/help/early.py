"""Answer ``--help`` and refuse misspelt commands and options before anything heavy is imported.

``texts.json`` holds each command's help and the names of its options. ``python -m lightning_steer.help`` writes it from
the parsers themselves, and a test compares the two. What stands below a class (``--model.strengths``) and what the
values are is left to the parser.
"""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lightning_steer.errors import UserError
from lightning_steer.help import commands

PATH = Path(__file__).with_name("texts.json")
HELP = ("-h", "--help")
ALL = "--help-all"


class Text(NamedTuple):
    """What ``texts.json`` knows of one command."""

    help: str
    """What ``--help`` prints."""
    options: list[str]
    """Every option of the parser."""
    groups: list[str]
    """Those of them, such as ``--trainer``, that stand for a group whose options are all listed."""
    below_classes: list[str]
    """Options below a class that the help shows; suggested for a misspelt one."""


class UnknownArgumentError(UserError):
    """A command or an option that does not exist."""


def read() -> dict[str, Text]:
    """Return the texts by command; under "" stands what may come before a command."""
    entries = json.loads(PATH.read_text(encoding="utf-8"))
    return {name: Text(**{**entry, "help": "\n".join(entry["help"])}) for name, entry in entries.items()}


def answer(arguments: Sequence[str]) -> str | None:
    """Return the help that is asked for; None if the command is to be run.

    Raises:
        UnknownArgumentError: there is no such command or option.
    """
    if not arguments or arguments[0] in (*HELP, ALL):
        return commands.overview()
    name, *rest = arguments
    if name.startswith("-"):  # a configuration of all commands may come before the command
        check_options("", [name])
        return None
    if name not in commands.NAMES:
        similar = difflib.get_close_matches(name, commands.NAMES, n=2, cutoff=0.5)
        meant = f" did you mean {' or '.join(similar)}?" if similar else ""
        raise UnknownArgumentError(f"there is no command {name!r};{meant} commands are {', '.join(commands.NAMES)}")
    asked = _before_separator(rest)
    if set(HELP) & set(asked) or (ALL in asked and name in [command.name for command in commands.COMMANDS]):
        return read()[name].help  # only experiments hide options
    if asked and not asked[0].startswith("-") and name in [command.name for command in commands.EXPERIMENTS]:
        raise UnknownArgumentError(f"{name} takes options only, not {asked[0]!r}: a configuration needs --config FILE")
    check_options(name, asked)
    return None


def check_options(name: str, arguments: Sequence[str]) -> None:
    """Refuse an option that the command does not have.

    Args:
        name: the command.
        arguments: what follows it.

    Raises:
        UnknownArgumentError: names the option, and similar ones.
    """
    text = read()[name]
    for argument in arguments:
        option = argument.partition("=")[0]
        if _is_option(argument) and not _is_known(option, text):
            where = f"of {name}" if name else "before a command"
            all_options = f"see {name} {ALL}" if name else "name the command first, such as fit"
            hint = f"did you mean {' or '.join(similar)}?" if (similar := _similar(option, text)) else all_options
            raise UnknownArgumentError(f"there is no option {option!r} {where}; {hint}")


def _before_separator(arguments: Sequence[str]) -> list[str]:
    """What follows ``--`` is no option."""
    words = list(arguments)
    return words[: words.index("--")] if "--" in words else words


def _is_option(argument: str) -> bool:
    """Whether argparse takes the argument for an option: a number, or a text with spaces, is a value."""
    name = argument.partition("=")[0]
    return " " not in name and (name.startswith("--") or (name[:1] == "-" and name[1:2].isalpha()))


def _is_known(option: str, text: Text) -> bool:
    if option in text.options or (not option.startswith("--") and option[:2] in text.options):
        return True
    parts = option.split(".")
    above = [".".join(parts[:count]) for count in range(1, len(parts))]
    return any(prefix in text.options and prefix not in text.groups for prefix in above)


def _similar(option: str, text: Text) -> list[str]:
    """Options with the same last word, else those that begin with it, else those that are spelt alike."""
    candidates = {
        name: name.strip("-+").rpartition(".")[2]
        for name in [*text.options, *text.below_classes]
        if not option.startswith(f"{name}.")
    }
    word = option.strip("-+").rpartition(".")[2].replace("-", "_")
    same = [name for name, last in candidates.items() if last == word]
    begins = [name for name, last in candidates.items() if len(word) > 2 and last.startswith(word)]
    alike = [
        name
        for name in difflib.get_close_matches(option, candidates, n=2, cutoff=0.7)
        if difflib.get_close_matches(word, [candidates[name]])  # more than the group is alike
    ]
    return (same or begins or alike)[:2]
