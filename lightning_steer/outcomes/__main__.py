"""``python -m lightning_steer judge``: outcomes of steering from any tool in, a verdict out. Loads no model."""

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from lightning_steer.arguments import Parser
from lightning_steer.errors import UserError
from lightning_steer.escapes import say

TABLES = """\
CSV, TSV, JSON lines or Parquet; MEASURE=path for a table without a column measure, SETTING=path for a sample log of
lm-evaluation-harness; or the folder of one of your own runs of steer or test"""
DESCRIPTION = """\
Judge outcomes of steering, from any tool. Choose a setting that does what steering is for and keeps the harms that you
name within their limits, and say how sure that is. Each --benefit and each --harm is a promise that the setting must
keep. No model is loaded."""
EPILOG = """\
A table has the columns item, setting, measure and value, with one row per item, setting and measure. Settings are
strengths (0 is the baseline) or names. Values are true or false, or numbers; a promise about numbers needs --range.
Columns cluster, group, seed, judge and position are read if they are there. A table of multiple-choice answers has the
columns item, strength, matching, p_a, p_b: matching is the letter of the answer that shows the behaviour, p_a and p_b
are the probabilities of the answers.

  --benefit "refused>=0"               refused rises by more than 0
  --harm "right falls<=.05"            right falls by less than .05
  --harm "refused[safe] rises<=.05"    refused rises by less than .05 among the items of group safe
  --harm "right<=.05"                  right changes by less than .05 in either direction
"""


def main(arguments: list[str] | None = None) -> int:
    """Read, judge, print and write; a user's mistake ends with one sentence and exit code 2."""
    parser = Parser.of_command(
        "judge",
        'TABLE [TABLE ...] --benefit "MEASURE>=0" [--harm "MEASURE falls<=LIMIT"] [options]',
        DESCRIPTION,
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("tables", nargs="+", metavar="TABLE", help=TABLES)
    add(
        "--benefit",
        action="append",
        default=[],
        metavar="RULE",
        help="what steering is for (see below); repeat the option for more; of the certified settings the one with the "
        "largest benefit is chosen, and of several benefits the first decides",
    )
    add(
        "--harm",
        action="append",
        default=[],
        metavar="RULE",
        help="what it may damage, and how much of that you accept (see below); repeat the option for more",
    )
    add(
        "--delta",
        type=float,
        default=0.05,
        metavar="P",
        help="accepted risk that the chosen setting breaks a promise (default: .05)",
    )
    add(
        "--baseline",
        metavar="SETTING",
        help="the setting without steering (default: strength 0, or the setting named baseline)",
    )
    add(
        "--cluster",
        metavar="COLUMN",
        help="the column that says which items belong together, such as a topic (default: cluster)",
    )
    add(
        "--range",
        metavar="RANGE",
        action="append",
        default=[],
        help="possible values of a measure, MEASURE=LOW..HIGH; a promise about numbers needs it, true and false do not",
    )
    add("--judge", metavar="NAME", help="whose scores to go by, where several judges scored; the others are compared")
    add(
        "--human",
        metavar="NAME",
        help="the judge whose labels are taken to be right; it must have labelled a random part of the items; its "
        "labels correct the effect that --judge sees",
    )
    add(
        "--split",
        metavar="SHARE",
        type=float,
        default=0.5,
        help="share of the items that is used to choose (default: .5); the others measure the chosen setting again; "
        "fix it before you see outcomes",
    )
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the random split (default: 0); fix it before you see outcomes",
    )
    for kind in ("html", "markdown", "json"):
        add(f"--{kind}", type=Path, metavar="FILE", help=f"write the judgement as {kind} to this file")
    options = parser.parse_args(arguments)
    try:
        return _judge(options)
    except (ValueError, OSError) as error:
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        if isinstance(error, ValueError) and not raised_in.startswith(str(Path(__file__).parents[1])):
            raise  # a ValueError of a library is our bug
        say(f"lightning_steer: {' '.join(str(error).split())}", error=True)
        return 2


def _judge(options: argparse.Namespace) -> int:
    from lightning_steer.outcomes.calls import with_earlier
    from lightning_steer.outcomes.judging import judge
    from lightning_steer.outcomes.saving import check_form

    paths = [path for path in (options.html, options.markdown, options.json) if path is not None]
    for path in paths:
        check_form(path)
    judgement = judge(
        options.tables,
        options.benefit,
        options.harm,
        delta=options.delta,
        baseline=options.baseline,
        cluster=options.cluster,
        ranges=_ranges(options.range),
        judge=options.judge,
        human=options.human,
        split=options.split,
        seed=options.seed,
    )
    for path in paths:
        judgement = with_earlier(judgement, path)
    for path in paths:
        judgement.save(path)
    say(judgement, end="")
    for path in paths:
        say(f"Wrote {path}.")
    return 0


def _ranges(texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    ranges: dict[str, tuple[float, float]] = {}
    for text in texts:
        name, ends = _range(text)
        if name in ranges:
            raise UserError(f"--range names {name!r} twice: give one range for a measure")
        ranges[name] = ends
    return ranges


def _range(text: str) -> tuple[str, tuple[float, float]]:
    from lightning_steer.outcomes.rows import number

    name, sign, ends = text.rpartition("=")
    low, dots, high = ends.partition("..")
    numbers = number(low.strip()), number(high.strip())
    if not (sign and dots and name.strip()) or high.startswith(".") or numbers[0] is None or numbers[1] is None:
        raise UserError(f"--range is written as MEASURE=LOW..HIGH, such as score=0..10, not {text[:60]!r}")
    return name.strip(), (numbers[0], numbers[1])


if __name__ == "__main__":
    sys.exit(main())
