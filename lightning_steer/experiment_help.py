"""The short help of the commands for experiments: the ten options that users set most, in groups, with an example.

The parser knows every option but those of classes, which stand below ``--model`` and ``--data``. The page has both
kinds: an option of the parser with the parser's help, an option of a class with its docstring's, and an option of
Lightning's with a sentence of ours.
"""

import argparse
from typing import NamedTuple, NoReturn

import docstring_parser

from lightning_steer.arguments import Paragraphs
from lightning_steer.data import BehaviourDataModule, PromptsDataModule
from lightning_steer.lm.language_model import LLM
from lightning_steer.modules import Responses, SteeringAdaptor

USAGE = "python -m lightning_steer {name} --config EXPERIMENT.yaml [--config METHOD.yaml] [options]"
EXAMPLE = """\
--config configs/steer_behaviour.yaml \\
      --config configs/methods/mean_difference.yaml \\
      --experiment mine --model.backbone.llm checkpoints/pocket/base \\
      --data.source PairsFile --data.source.path configs/pairs.jsonl"""


class Option(NamedTuple):
    """One option of the page."""

    name: str
    metavar: str
    described_by: type | str | None = None
    """The class whose docstring describes it, or the help itself; None if the parser has it."""


class Page(NamedTuple):
    """The help of one command."""

    summary: str
    example: str
    groups: dict[str, list[Option]]


CONFIG = Option(
    "--config",
    "FILE",
    "a configuration file; give the option once for the experiment, then once for the method; where files disagree, "
    "the later one counts; configs/ holds the experiments that come with the package, configs/methods/ the methods",
)
EXPERIMENT = Option("--experiment", "NAME")
RUN = Option("--run", "NAME")
SEED = Option(
    "--seed_everything", "N", "seed of what is drawn at random (default: 0), except the split of pairs: --data.seed"
)
CHECKPOINT = Option("--ckpt_path", "FILE", "the checkpoint to read (default: best.ckpt in checkpoints/EXPERIMENT/RUN)")
MISMATCH = Option("--accept_mismatch", "{true,false}")
LANGUAGE_MODEL = Option("--model.backbone.llm", "NAME", LLM)
LAYERS = Option("--model.backbone.layers", "[N,...]", LLM)
METHOD = Option("--model.method", "CLASS", SteeringAdaptor)
STRENGTHS = Option("--model.strengths", "[X,...]", SteeringAdaptor)
TESTED = Option(
    "--model.strengths",
    "[X,...]",
    "the strengths at which the dose-response is measured, in the method's own units; the strength that `fit` chose is "
    "measured in any case and stays the chosen one",
)
SOURCE = Option("--data.source", "CLASS", BehaviourDataModule)
REFERENCE = Option("--data.reference_texts", "FILE", BehaviourDataModule)
WHAT, MODEL, DATA = (
    "what to run",
    "model and method, in place of the configuration's",
    "data, in place of the configuration's",
)
MEASURE = {
    WHAT: [CONFIG, EXPERIMENT, RUN, CHECKPOINT, MISMATCH, SEED],
    MODEL: [LANGUAGE_MODEL, STRENGTHS],
    DATA: [SOURCE, REFERENCE],
}
PAGES = {
    "fit": Page(
        "Train a network, or fit a steering method and choose its strength.",
        EXAMPLE,
        {
            WHAT: [CONFIG, EXPERIMENT, RUN, Option("--overwrite", "{true,false}"), SEED],
            MODEL: [LANGUAGE_MODEL, LAYERS, METHOD, STRENGTHS],
            DATA: [SOURCE],
        },
    ),
    "validate": Page("Run the sweep over strengths again, with what `fit` has fitted.", EXAMPLE, MEASURE),
    "test": Page(
        "Measure on held-out data what `fit` has fitted, and write a report.",
        EXAMPLE,
        {**MEASURE, MODEL: [LANGUAGE_MODEL, TESTED]},
    ),
    "predict": Page(
        "Write steered text, predictions or activations to files. For a vector file, no\nconfiguration is needed: "
        "predict --vector FILE --data.file prompts.txt",
        "--config configs/responses.yaml --data.file prompts.txt \\\n"
        "      --model.steering checkpoints/mine/mean_difference/best.ckpt",
        {
            WHAT: [CONFIG, EXPERIMENT, RUN, CHECKPOINT],
            MODEL: [
                LANGUAGE_MODEL,
                Option("--model.steering", "FILE", Responses),
                Option("--model.strengths", "[X,...]", Responses),
                Option("--model.max_new_tokens", "N", Responses),
                Option("--model.temperature", "X", Responses),
            ],
            DATA: [Option("--data.file", "FILE", PromptsDataModule)],
        },
    ),
}
MORE = """\
more help:
  --help-all           all options, those of Lightning's trainer too
  --model.help CLASS   the options of a class, such as SteeringAdaptor
  --data.help CLASS    those of a data class, such as BehaviourDataModule
  --print_config       print the configuration in full, without running it

For example:
  python -m lightning_steer {name} {example}
"""


class ShortHelp(argparse._HelpAction):
    """Print the page of the command instead of all options."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:  # type: ignore[override]
        """Print and exit."""
        print(text(parser), end="")
        parser.exit()


def text(parser: argparse.ArgumentParser) -> str:
    """Return the page of a command, whose name is the last word of its parser's ``prog``."""
    name = parser.prog.split()[-1]
    page = PAGES[name]
    shown = argparse.ArgumentParser(
        prog=name,
        usage=USAGE.format(name=name),
        description=page.summary,
        epilog=MORE.format(name=name, example=page.example),
        formatter_class=Paragraphs,
        add_help=False,
    )
    helps = {option: action for action in parser._actions for option in action.option_strings}
    for title, options in page.groups.items():
        group = shown.add_argument_group(title)
        for option in options:
            group.add_argument(option.name, metavar=option.metavar, help=_help(option, helps).replace("%", "%%"))
    return shown.format_help()


def _help(option: Option, actions: dict[str, argparse.Action]) -> str:
    if isinstance(option.described_by, str):
        return option.described_by
    if option.described_by is None:
        action = actions[option.name]
        default = f" (default: {str(action.default).lower()})" if isinstance(action.default, bool) else ""
        return f"{action.help}{default}"
    name = option.name.rpartition(".")[2]
    described = docstring_parser.parse(option.described_by.__doc__ or "").params
    sentence = next(entry.description or "" for entry in described if entry.arg_name == name)
    return " ".join(sentence.replace("`", "").split()).removesuffix(".")
