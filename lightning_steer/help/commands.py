"""The commands of ``python -m lightning_steer``; the only place that lists them.

To add a command: write a module with ``main(arguments)``, which parses them with argparse, runs the command and returns
the exit code. Add an entry to ``COMMANDS``. Then run ``python -m lightning_steer.help``, which writes the command's
help and options into ``texts.json``.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple


class Command(NamedTuple):
    """One command."""

    name: str
    summary: str
    """What it does, in one line of the overview."""
    module: str
    """The module whose ``main`` runs it; imported only then."""
    example: str = ""
    """Its arguments in the overview's example."""


COMMANDS = (
    Command(
        "steer",
        "choose layer and strength from contrast pairs; measure effect and damage",
        "lightning_steer.workflows.command",
        "--llm checkpoints/pocket/base --pairs configs/pairs.jsonl",
    ),
    Command(
        "plan",
        "say what a run will cost in memory and time, before anything is loaded",
        "lightning_steer.plan.__main__",
        "--llm checkpoints/pocket/base --pairs configs/pairs.jsonl",
    ),
    Command(
        "lint",
        "look for what spoils contrast pairs, such as one side always being longer",
        "lightning_steer.lint.__main__",
        "configs/pairs.jsonl",
    ),
    Command(
        "check",
        "test whether steering does to your model what it should",
        "lightning_steer.check.__main__",
        "--llm checkpoints/pocket/base --labels Yes No",
    ),
    Command(
        "chat",
        "talk to the model at several strengths, side by side or on a page",
        "lightning_steer.chat.__main__",
        "--llm checkpoints/pocket/base --vector logs/steer/pairs/vector.safetensors",
    ),
    Command(
        "export",
        "write a fitted vector to a file, for this tool or another one",
        "lightning_steer.vectors.__main__",
        "logs/steer/pairs/vector.safetensors honest.gguf",
    ),
    Command(
        "judge",
        "judge outcomes of any tool; choose a strength within your limits",
        "lightning_steer.outcomes.__main__",
        'outcomes.csv --benefit "refused>=0" --harm "right falls<=.05"',
    ),
)
EXPERIMENTS_MODULE = "lightning_steer.cli"
EXPERIMENTS = (
    Command("fit", "train a network, or fit a steering method and choose its strength", EXPERIMENTS_MODULE),
    Command("validate", "run the sweep over strengths again, with what `fit` has fitted", EXPERIMENTS_MODULE),
    Command("test", "measure the result on held-out data, and write a report", EXPERIMENTS_MODULE),
    Command("predict", "write steered text, predictions or activations to files", EXPERIMENTS_MODULE),
)
"""What Lightning runs, from configuration files."""
NAMES = [command.name for command in (*COMMANDS, *EXPERIMENTS)]

OVERVIEW = """\
usage: python -m lightning_steer COMMAND [options]

Steer a language model, and find out what that changed.

commands, each with an example:
{commands}

commands for experiments, which are put together from configuration files:
{experiments}

  For example, fit a method, then measure it on held-out data:

  python -m lightning_steer fit --config configs/steer_behaviour.yaml \\
      --config configs/methods/mean_difference.yaml
  python -m lightning_steer test --config configs/steer_behaviour.yaml \\
      --config configs/methods/mean_difference.yaml

more help:
  COMMAND --help           the options that users set most, with an example
  COMMAND --help-all       all options
  fit --model.help CLASS   the options of a class, such as SteeringAdaptor
  fit --data.help CLASS    those of a data class, such as BehaviourDataModule

`python -m lightning_steer.report logs/` collects the reports of all runs into one table.
"""


def overview() -> str:
    """Return the help of ``python -m lightning_steer`` itself."""
    commands = [
        f"  {command.name:<10}{command.summary}\n{'':12}{command.name} {command.example}".rstrip()
        for command in COMMANDS
    ]
    experiments = [f"  {command.name:<10}{command.summary}" for command in EXPERIMENTS]
    return OVERVIEW.format(commands="\n".join(commands), experiments="\n".join(experiments))


def run(arguments: Sequence[str]) -> int:
    """Import and run the command that the first argument names; return its exit code."""
    words = list(arguments)
    for command in COMMANDS:
        if command.name == words[0]:
            return import_module(command.module).main(words[1:])
    return import_module(EXPERIMENTS_MODULE).main(words)
