"""Look for what spoils contrast pairs before a vector is fitted to them.

It warns of duplicates, of held-out pairs that are also fitted to, and of surface features (letter, position, length,
first word) that distinguish positives from negatives, each with its size, a 95 % interval and a test. Exit code 1 if
there is any warning.
"""

import sys
from pathlib import Path

from lightning_steer.arguments import Parser
from lightning_steer.errors import UserError
from lightning_steer.escapes import say
from lightning_steer.lint.linting import lint_pairs
from lightning_steer.lint.pairs_file import read_pairs
from lightning_steer.resources import resource_path


def main(arguments: list[str] | None = None) -> int:
    """Read, lint and print; return 1 if anything was raised."""
    parser = Parser(
        prog="python -m lightning_steer lint",
        usage="%(prog)s PAIRS [NEGATIVES] [options]",
        description=__doc__,
    )
    parser.add_argument(
        "pairs",
        type=Path,
        metavar="PAIRS",
        help='contrast pairs: JSON lines of {"prompt", "positive", "negative"}, a .csv file with these columns, or a '
        'file of CAA: {"question", "answer_matching_behavior", "answer_not_matching_behavior"}',
    )
    parser.add_argument(
        "negatives",
        nargs="?",
        type=Path,
        metavar="NEGATIVES",
        help="a text file with one negative per line; PAIRS is then a text file with one positive per line",
    )
    parser.add_argument(
        "--held_out",
        type=Path,
        metavar="FILE",
        help="the held-out pairs, on which the vector will be measured; they should share nothing with PAIRS",
    )
    parser.add_argument(
        "--llm", metavar="NAME", help="a model, by hub name or folder: lengths and first words are then in its tokens"
    )
    parser.add_argument("--revision", metavar="NAME", help="the model's branch, tag or commit on the hub")
    options = parser.parse_args(arguments)
    if options.revision is not None and options.llm is None:
        raise UserError(f"--revision {options.revision!r} is of a model, and none is named: add --llm NAME")
    negatives = options.negatives and Path(resource_path(str(options.negatives)))
    pairs = read_pairs(Path(resource_path(str(options.pairs))), negatives)
    held_out = read_pairs(Path(resource_path(str(options.held_out)))) if options.held_out else []
    tokenizer = None
    if options.llm is not None:
        from lightning_steer.lm.loading import load_tokenizer

        tokenizer = load_tokenizer(resource_path(options.llm), options.revision)
    report = lint_pairs(pairs, held_out, tokenizer)
    say(report)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
