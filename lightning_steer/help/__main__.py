"""``python -m lightning_steer.help``: write ``texts.json``, the help and the options of every command.

Run it after a change of a command's options, of their help, or of a docstring that the help shows. The commands are
asked themselves: what ``--help`` prints is captured, and the parser that prints it is read.
"""

import io
import json
import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from importlib import import_module
from typing import Any
from unittest.mock import patch

from lightning_steer import files
from lightning_steer.help import commands, early

WIDTH = 80
"""Characters in a line of the help: a terminal's usual width."""


def texts() -> dict[str, Any]:
    """Return the content of ``texts.json``, made from the parsers."""
    experiments = import_module(commands.EXPERIMENTS_MODULE).main
    own = {command.name: _entry(import_module(command.module).main) for command in commands.COMMANDS}
    lightning = {command.name: _entry(experiments, command.name, early.ALL) for command in commands.EXPERIMENTS}
    return {"": {**_entry(experiments), "help": []}, **own, **lightning}  # the overview is the first one's help


def _entry(main: Callable[[list[str]], Any], command: str | None = None, for_all: str = "--help") -> dict[str, Any]:
    """Return what is known of one command.

    Args:
        main: runs it.
        command: its name, if ``main`` has to be told.
        for_all: the option that lists all options.
    """
    words = [] if command is None else [command]
    parsers: list[ArgumentParser] = []
    with patch.dict(os.environ, COLUMNS=str(WIDTH + 2)), redirect_stdout(io.StringIO()) as printed:
        with suppress(SystemExit):
            main([*words, "--help"])
        with (
            suppress(SystemExit),
            patch.object(ArgumentParser, "print_help", lambda parser, *_: parsers.append(parser)),
        ):
            main([*words, for_all])
    options = sorted({option for action in parsers[0]._actions for option in action.option_strings})
    shown = [
        line.split()[0] for line in printed.getvalue().splitlines() if line.startswith(("  --model.", "  --data."))
    ]
    return {
        "help": printed.getvalue().split("\n"),
        "options": options,
        "groups": [option for option in options if _is_group(option, options)],
        "below_classes": [option for option in shown if option not in options],
    }


def _is_group(option: str, options: Sequence[str]) -> bool:
    """Whether it stands for a group of options, each of which is listed; a class has no more than its ``.help``."""
    return any(other.startswith(f"{option}.") and other != f"{option}.help" for other in options)


def main() -> int:
    """Write the file."""
    files.write(early.PATH, (json.dumps(texts(), indent=1, ensure_ascii=False) + "\n").encode())
    print(f"Wrote {early.PATH}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
